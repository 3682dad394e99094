"""Does pretrained `star` hold at ten times the longest horizon of its meta-training, on every task of the suite `ood`?

python examples/ten_times.py   # 34 tasks, one seed, 30,000 steps: 12 minutes of one CPU core
"""

import zlib

import jax
import numpy as np

from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.evaluate import batch, suites
from learned_opt.evaluate.benchmark import KEY

STEPS, WINDOW = 30_000, 100


def main() -> None:
    """Prints mean losses of windows: where 2000 steps end, the last, and the lowest."""
    optimizer, theta, _ = load_learned_optimizer("star")
    print(f"{'task':28} finite  at 2000    last  lowest")
    for task, family in suites.suite("ood").tasks.items():
        draws = batch.draw(family, jax.random.fold_in(jax.random.key(KEY), zlib.crc32(task.encode())), seeds=1)
        program = batch.program(optimizer, tuple(jax.local_devices()[:1]))
        runs = batch.Runs(program, [theta], family, draws, STEPS)
        runs.train_to(STEPS)
        losses = runs.training_losses()[0, 0].astype(float)
        windows = losses.reshape(-1, WINDOW).mean(1)
        finite = np.isfinite(losses).all() and np.isfinite(runs.evaluated("valid")).all()
        at_2000 = windows[2000 // WINDOW - 1]
        print(f"{task:28} {finite!s:6} {at_2000:8.2g}{windows[-1]:8.2g}{windows.min():8.2g}", flush=True)
        batch.forget()


if __name__ == "__main__":
    main()
