"""Does pretrained `star` hold at ten times the longest horizon of its meta-training, on every task of the suite `ood`?

python examples/ten_times.py   # 34 tasks, one seed, 30,000 steps: 25 minutes of one CPU core
"""

import jax

from learned_opt.checkpoints.load import load_learned_optimizer
from learned_opt.evaluate import batch, scores, suites
from learned_opt.evaluate.benchmark import KEY

STEPS, WINDOW = 30_000, 100


def main() -> None:
    """Prints whether the run diverged, its final training loss, and the lowest mean over a window of steps."""
    optimizer, theta, _ = load_learned_optimizer("star")
    print(f"{'task':28} diverged   final  lowest")
    for task, family in suites.suite("ood").tasks.items():
        draws = batch.draw(family, batch.task_key(jax.random.key(KEY), task), seeds=1)
        program = batch.program(optimizer, tuple(jax.local_devices()[:1]))
        runs = batch.Runs(program, [theta], family, draws, STEPS)
        runs.train_to(STEPS)
        losses = runs.training_losses()
        score = scores.score(losses, runs.evaluated("valid"), runs.evaluated("test"), STEPS)
        lowest = losses.astype(float).reshape(-1, WINDOW).mean(1).min()
        print(f"{task:28} {score.diverged.item()!s:8} {score.final_loss.item():7.2g} {lowest:7.2g}", flush=True)
        batch.forget()


if __name__ == "__main__":
    main()
