"""One step size for least squares: chosen by the training loss (train-by-train) or by that of held-out samples.

Wang et al. 2021, arXiv 2006.16495, setting 2: `y = <w*, x> + xi`, w* on the unit sphere, `x ~ N(0, I)`,
`xi ~ N(0, sigma^2)`; t steps of full-batch gradient descent from 0 on `1 / (2n) ||y - X w||^2`.
"""

from typing import NamedTuple

import numpy as np

STEPS = 40
ETAS = np.geomspace(1e-6, 1, 25)
FREEZE = 40  # times sigma: a norm at which training stops, at FREEZE sigma along the first axis
TEST_TASKS = 10


class Samples(NamedTuple):
    """X `[n, d]`, y `[n]`, and the true weights `[d]`."""

    features: np.ndarray
    targets: np.ndarray
    truth: np.ndarray


class Setting(NamedTuple):
    """Dimension, samples of a task, deviation of the noise, and tasks to choose on."""

    dimension: int
    samples: int
    noise: float
    tasks: int


class Tuned(NamedTuple):
    """The step size chosen, and its means over new tasks: `||w - w*||^2`, RMSE in training and in test."""

    eta: float
    error: float
    train: float
    test: float


def sample(rng: np.random.Generator, setting: Setting) -> Samples:
    """One task."""
    truth = rng.standard_normal(setting.dimension)
    truth /= np.linalg.norm(truth)
    features = rng.standard_normal((setting.samples, setting.dimension))
    return Samples(features, features @ truth + setting.noise * rng.standard_normal(setting.samples), truth)


def train(samples: Samples, etas: np.ndarray, noise: float) -> np.ndarray:
    """Weights after `STEPS` steps for every step size `[etas, d]`, all from one decomposition of the features."""
    eigenvalues, along, v = _decomposed(samples)
    shrinking = 1 - np.multiply.outer(etas, eigenvalues)
    frozen = np.zeros(len(etas), bool)
    power = np.ones_like(shrinking)
    for _ in range(STEPS):
        power = power * shrinking
        frozen |= np.linalg.norm((1 - power) * along, axis=1) >= FREEZE * noise
        power[frozen] = 1  # of no use any more, and it would overflow
    weights = ((1 - power) * along) @ v
    weights[frozen] = FREEZE * noise * np.eye(1, weights.shape[1])
    return weights


def _decomposed(samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`lambda = S^2 / n`, `U^T y / S` and `V^T` of `X = U S V^T`: `w_t = V (1 - (1 - eta lambda)^t) U^T y / S`.

    From the smaller of `X^T X` and `X X^T`, which takes a tenth of the time of a singular value decomposition.
    """
    x, y, _ = samples
    if len(y) >= x.shape[1]:
        squares, v = np.linalg.eigh(x.T @ x)
        return squares / len(y), (v.T @ (x.T @ y)) / squares, v.T
    squares, u = np.linalg.eigh(x @ x.T)
    roots = np.sqrt(squares)
    return squares / len(y), (u.T @ y) / roots, (u.T @ x) / roots[:, None]


def tune(setting: Setting, validate: bool, seed: int = 0) -> Tuned:
    """Chooses by the mean training loss, or, having trained on half of the samples, by that of the other half.

    What is chosen is put to use on all samples of new tasks; both ways of choosing see the same tasks.
    """
    rng = np.random.default_rng(seed)
    losses = np.zeros(len(ETAS))
    for _ in range(setting.tasks):
        task = sample(rng, setting)
        half = setting.samples // 2
        seen, measured = (slice(half), slice(half, None)) if validate else (slice(None), slice(None))
        weights = train(Samples(task.features[seen], task.targets[seen], task.truth), ETAS, setting.noise)
        losses += np.square(task.features[measured] @ weights.T - task.targets[measured][:, None]).mean(0)
    eta = ETAS[losses.argmin()]
    errors, residuals = [], []
    for _ in range(TEST_TASKS):
        task = sample(rng, setting)
        (weights,) = train(task, eta[None], setting.noise)
        errors.append(np.square(weights - task.truth).sum())
        residuals.append(np.square(task.features @ weights - task.targets).mean())
    error = float(np.mean(errors))
    return Tuned(float(eta), error, float(np.mean(residuals)) ** 0.5, (error + setting.noise**2) ** 0.5)
