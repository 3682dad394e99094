"""Tables that need no data: a fixed random network, the teacher, gives the targets of normal features."""

import numpy as np

from learned_opt.tasks.base import SPLITS
from learned_opt.tasks.sources import in_order

TEACHERS = ("teacher_classification", "teacher_regression")
SEED = 0
ROWS, INPUTS, HIDDEN, OUTPUTS = 4500, 20, 16, 10
NOISE = 0.1


def teacher() -> tuple[np.ndarray, np.ndarray]:
    """Features X `[4500, 20]` of N(0, 1) and outputs `tanh(X W1) W2` `[4500, 10]`, with weights of N(0, 1 / inputs)."""
    rng = np.random.RandomState(SEED)  # its numbers are promised never to change, unlike those of newer generators
    features = rng.standard_normal((ROWS, INPUTS))
    first = rng.standard_normal((INPUTS, HIDDEN)) / np.sqrt(INPUTS)
    second = rng.standard_normal((HIDDEN, OUTPUTS)) / np.sqrt(HIDDEN)
    return features, np.tanh(features @ first) @ second


def make(name: str) -> dict[str, np.ndarray]:
    """The arrays `{split}_features` and `{split}_targets` of a teacher, `name` being one of `TEACHERS`.

    Targets are the largest output's index, or the first output. The training split alone is noisy: a tenth of its
    labels are another class, or its outputs have normal noise of a tenth of their deviation.
    """
    features, outputs = teacher()
    cut = in_order(ROWS)
    rng = np.random.RandomState(SEED + 1)
    size = cut["train"].stop
    if name == "teacher_classification":
        targets = outputs.argmax(1).astype(np.int32)
        noisy = rng.permutation(size)[: int(NOISE * size)]
        targets[noisy] = (targets[noisy] + rng.randint(1, OUTPUTS, len(noisy))) % OUTPUTS
    else:
        targets = outputs[:, 0].copy()
        targets[:size] += NOISE * targets[:size].std() * rng.standard_normal(size)
    rows = {f"{split}_features": features[cut[split]] for split in SPLITS}
    return rows | {f"{split}_targets": targets[cut[split]] for split in SPLITS}
