"""A learned optimizer for 200 samples with wrong labels: meta-trained on its training loss, or on held-out samples.

Wang et al. 2021, arXiv 2006.16495, setting 3: an MLP for every weight, black box, by truncated backpropagation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from learned_opt.base import LearnedOptimizer, Theta
from learned_opt.evaluate.reproduce.weight_mlp import WeightMLP
from learned_opt.meta_train.horizons import Horizons
from learned_opt.meta_train.objective import MetaObjective
from learned_opt.meta_train.parallel import Component, OuterSteps
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop
from learned_opt.meta_train.unroll import Unroller
from learned_opt.tasks import datasets, teachers, training
from learned_opt.tasks.datasets import Table
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.supervised import Supervised

SAMPLES, NOISE, CLASSES = 200, 0.2, 10
OPTIMIZER = WeightMLP(hidden=8, step_scale=0.02, magnitude_scale=0.1)
TRUNCATION, HORIZON, PARTICLES = 20, 500, 4
DEPLOYED = 1000


class Trained(NamedTuple):
    """Accuracies of networks at the end, by seed: on the training samples, wrong labels and all, and in test."""

    train: np.ndarray
    test: np.ndarray


def problem(name: str) -> tuple[Supervised, Supervised]:
    """For deployment, with all samples in training; and with half of them for training and half for validation."""
    if name == "teacher":
        features, outputs = teachers.teacher()
        labels = outputs.argmax(1)
    else:
        data = datasets.load("digits")
        features = np.concatenate([data.images[s].reshape(len(data.images[s]), -1) / 255 for s in ("train", "test")])
        labels = np.concatenate([data.labels[s] for s in ("train", "test")])
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    features, labels = features[order].astype(np.float32), labels[order].astype(np.int32)
    noisy = np.where(rng.random(SAMPLES) < NOISE, rng.integers(0, CLASSES, SAMPLES), labels[:SAMPLES]).astype(np.int32)

    def family(cut: dict[str, slice]) -> Supervised:
        x = {s: features[rows] for s, rows in cut.items()}
        y = {s: noisy[rows] if s != "test" else labels[rows] for s, rows in cut.items()}
        data = Table(x, y, CLASSES)
        return Supervised(data, architecture(MLP, hidden=(16,)), activations=("tanh",), batch_size=32)

    half, test = SAMPLES // 2, slice(SAMPLES, SAMPLES + 1000)
    whole = family({"train": slice(SAMPLES), "test": test})
    return whole, family({"train": slice(half), "valid": slice(half, SAMPLES), "test": test})


def meta_train(family: Supervised, validate: bool, steps: int, seed: int, optimizer=OPTIMIZER, rate=3e-3) -> Theta:
    """Meta-parameters after `steps` outer steps."""
    unroller = Unroller(
        family=family,
        optimizer=optimizer,
        objective=MetaObjective(measured_on="valid" if validate else "train", clip=4.0),
        truncation=TRUNCATION,
        horizons=Horizons(shortest=HORIZON, longest=HORIZON, out_of_phase=True),
    )
    outer_optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(rate, steps)))
    outer_steps = OuterSteps(
        [Component(TruncatedBackprop(unroller=unroller), PARTICLES)], outer_optimizer, jax.devices()[:1]
    )
    key = jax.random.key(seed)
    theta = optimizer.init(key)
    outer, states = outer_steps.init_outer(theta), outer_steps.init(key, theta)
    for i in range(steps):
        outer, states, m = outer_steps.step(outer, states, jax.random.fold_in(key, i))
        if i % (steps // 8) == 0:
            print(i, float(m["loss"][0]), float(m["gradient_norm"]), m["dropped"], flush=True)
    return outer.theta


def deploy(family: Supervised, optimizer: LearnedOptimizer, theta: Theta, seeds: int) -> Trained:
    """Trains networks on all samples."""
    task = family.task(jnp.zeros((), jnp.int32))
    transform = optimizer.transform(theta)

    def accuracy(params, split):
        x, y = task.family.data.features[split], task.family.data.targets[split]
        logits = task.family.network.apply(params, *task.family.sizes(), jnp.asarray(x), jnp.tanh, jax.random.key(0))
        return (logits.argmax(1) == y).mean()

    def one(key):
        start_key, key = jax.random.split(key)
        inner = training.start(task, transform, start_key)

        def body(inner, k):
            inner, seen = training.step(task, transform, inner, k)
            return inner, seen.loss

        def chunk(inner, k):
            inner, loss = jax.lax.scan(body, inner, jax.random.split(k, DEPLOYED // 10))
            return inner, (accuracy(inner.params, "train"), accuracy(inner.params, "test"))

        return jax.lax.scan(chunk, inner, jax.random.split(key, 10))[1]

    train, test = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(123), seeds))
    return Trained(np.asarray(train), np.asarray(test))
