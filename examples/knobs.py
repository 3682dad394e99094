"""What each knob of `learned_opt.load` does to a network on 8x8 digits, 1000 steps: final training, validation loss.

python examples/knobs.py digits
python examples/knobs.py aligned   # STAR with its controller of step sizes, not meta-trained
"""

import functools
import io
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from sklearn.datasets import load_digits

import learned_opt
from learned_opt.evaluate import compare, contenders

STEPS, SEEDS = 1000, 5
DIGITS = load_digits(return_X_y=True)
MATRICES = functools.partial(jax.tree.map, lambda p: p.ndim > 1)  # as a mask: biases do not decay
KNOBS = {
    "as it is": {},
    "step_multiplier=0.1": {"step_multiplier": 0.1},
    "step_multiplier=0.3": {"step_multiplier": 0.3},
    "step_multiplier=3": {"step_multiplier": 3.0},
    "step_multiplier=10": {"step_multiplier": 10.0},
    "a warm-up over 100 steps": {"step_multiplier": optax.linear_schedule(0.0, 1.0, 100)},
    "weight_decay=1e-4": {"weight_decay": 1e-4, "mask": MATRICES},
    "weight_decay=1e-3": {"weight_decay": 1e-3, "mask": MATRICES},
    "weight_decay=1e-2": {"weight_decay": 1e-2, "mask": MATRICES},
    "total_steps=1000": {"total_steps": STEPS},
    "total_steps=1000, cooldown=0.5": {"total_steps": STEPS, "cooldown": 0.5},
    "clip=0.1": {"clip": 0.1},
}


def init(key):
    """Starting weights of one hidden layer of 32."""
    keys = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(keys[0], (64, 32)) / 8, "b": jnp.zeros(32)},
        "out": {"w": jax.random.normal(keys[1], (32, 10)) / 32**0.5, "b": jnp.zeros(10)},
    }


def loss(params, batch):
    """Cross-entropy in nats."""
    x, y = batch
    hidden = jax.nn.relu(x / 16 @ params["hidden"]["w"] + params["hidden"]["b"])
    logits = hidden @ params["out"]["w"] + params["out"]["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def make(name, knobs):
    """The optimizer called `name` with knobs."""
    if name != "aligned":
        return learned_opt.load(name, **knobs)
    star = learned_opt.Star(aligned=True, preconditioner="rms", nominal_scale=3e-3, step_scale=3e-3, weight_decay=0.0)
    return learned_opt.with_knobs(star.transform(star.init(jax.random.key(0))), **knobs)


def main(name="digits"):
    """Prints medians over seeds."""
    optimizers = [contenders.given(label, make(name, knobs)) for label, knobs in KNOBS.items()]
    results = compare(loss, init, DIGITS, optimizers, steps=STEPS, seeds=SEEDS, console=Console(file=io.StringIO()))
    print(f"{name:34}{'training loss':>14}{'validation loss':>18}")
    for label, run in results.runs["problem"].items():
        score = run.scores[STEPS]
        print(f"{label:34}{np.median(score.final_loss):14.2e}{np.median(score.valid_loss):18.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
