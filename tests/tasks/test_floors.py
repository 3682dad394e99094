"""Stated floors against the expected loss at the best point, each by another road; rounded down by at most 1 %."""

import numpy as np
import pytest
from scipy import optimize, special

from learned_opt.tasks import registry

NOISE = 0.01  # of the argument of functions


def entropy(p):
    return special.entr(p) + special.entr(1 - p)


def sphere(x):
    return np.sum(x**2 + NOISE**2)


def rastrigin(x):
    """The mean of cos(a + b e) over normal e is cos(a) exp(-b^2 / 2)."""
    damped = np.exp(-((2 * np.pi * NOISE) ** 2) / 2)
    return np.sum(x**2 + NOISE**2 + 10 - 10 * damped * np.cos(2 * np.pi * x))


def rosenbrock(x):
    """Moments of a normal up to the fourth."""
    a, b, v = x[1:] - x[:-1] ** 2, x[:-1], NOISE**2
    return np.sum(100 * (a**2 - 2 * a * v + v + 4 * b**2 * v + 3 * v**2) + (1 - b) ** 2 + v)


@pytest.mark.parametrize(("expected", "dimension"), [(sphere, 10), (rastrigin, 10), (rosenbrock, 2), (rosenbrock, 10)])
def test_functions(expected, dimension):
    draws = np.random.default_rng(0).uniform(-2, 2, (20, dimension))
    least = min(optimize.minimize(expected, start, tol=1e-12).fun for start in [*draws, np.zeros(dimension)])
    assert 0.99 * least <= registry.floor(f"{expected.__name__}-{dimension}d") <= least + 1e-12


def test_regression_and_quadratic():
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)  # w.x is normal of deviation 3
    logistic = weights @ entropy(special.expit(3 * nodes)) / np.sqrt(2 * np.pi)
    quadratic = 0.5 * np.sum(0.1**2 / np.arange(1, 51))
    for name, least in {"regression-linear": 0.5 * 0.1**2, "regression-logistic": logistic}.items():
        for suffix in ("", "-ill"):
            assert 0.99 * least <= registry.floor(name + suffix) <= least
    assert 0.99 * quadratic <= registry.floor("quadratic-noisy") <= quadratic


@pytest.mark.parametrize(
    "data", ["digits", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mnist", "fashion_mnist"))]
)
def test_autoencoders(data, family_of):
    """No logits have a smaller cross-entropy than the pixels' own entropy."""
    family = family_of(f"{data}-autoencoder")
    least = min(entropy(x / 255.0).sum((1, 2, 3)).mean() for x in family.data.images.values())
    assert 0.99 * least <= registry.floor(f"{data}-autoencoder") == registry.floor(f"{data}-vae") <= least


def test_augmentations_keep_it_unless_they_rescale_losses():
    stated = registry.floor("quadratic-noisy")
    assert registry.floor("quadratic-noisy+reparametrised+noise") == stated
    assert registry.floor("quadratic-noisy+noise+loss-rescaled") == 0
    assert registry.floor("mlp-32-relu") == 0
