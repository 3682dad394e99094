"""STAR against a plain NumPy reading of its definition: no folding of scales, no change of layout."""

import itertools
from typing import get_args

import jax
import numpy as np
import pytest

from learned_opt import Star
from learned_opt.nominal import Nominal
from learned_opt.star import Preconditioner

TIMES = [1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]
SHAPES = [(), (5,), (4, 3), (3, 4), (3, 3), (2, 2, 4, 3)]
WIDE = [(20, 17), (2, 3, 18)]  # with a last dimension that stays where it is
# Terms of comparable size, so that none hides the others' errors.
SCALES = {"step_scale": 0.03, "nominal_scale": 0.02, "exponent_scale": 0.5, "weight_decay": 0.1}


class PlainStar:
    """One tensor. Every feature is a full array; the network runs on `[*shape, 39]`."""

    def __init__(self, star, theta, shape):
        self.star, self.network, self.t = star, theta["network"], 0
        starts = {
            "momenta": np.array([0.9, 0.99, 0.999]),
            "second_moment": np.array(0.999),
            "factored": np.array([0.9, 0.99, 0.999]),
        }
        self.decay = {k: np.clip(1 - (1 - d) * np.exp(10 * theta["decays"][k]), 0, 1 - 1e-6) for k, d in starts.items()}
        self.decay["second_moment"] = max(self.decay["second_moment"], *self.decay["momenta"])
        by_size = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
        self.second, self.largest = by_size[-2:] if len(shape) > 1 else (None, None)
        self.m, self.v = [0.0, 0.0, 0.0], 0.0
        self.rows, self.cols = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]

    def average(self, old, new, decay):
        return decay * old + (1 - decay) * new

    def corrected(self, average, decay):
        return average / (1 - decay**self.t) if self.star.bias_correction else average

    def statistics(self, g):
        """Momenta, second moment, and row and column means, updated and as full arrays."""
        d, square = self.decay, g**2 + 1e-30
        self.t += 1
        row, col = square, square
        if g.ndim > 1:
            row = np.broadcast_to(square.mean(self.second, keepdims=True), g.shape)
            col = np.broadcast_to(square.mean(self.largest, keepdims=True), g.shape)
        for i in range(3):
            self.m[i] = self.average(self.m[i], g, d["momenta"][i])
            self.rows[i] = self.average(self.rows[i], row, d["factored"][i])
            self.cols[i] = self.average(self.cols[i], col, d["factored"][i])
        self.v = self.average(self.v, g**2, d["second_moment"])
        return (
            [self.corrected(self.m[i], d["momenta"][i]) for i in range(3)],
            self.corrected(self.v, d["second_moment"]),
            [self.corrected(self.rows[i], d["factored"][i]) for i in range(3)],
            [self.corrected(self.cols[i], d["factored"][i]) for i in range(3)],
        )

    def features(self, p, g, m, v, rows, cols):
        eps = self.star.second_moment_eps
        features = [g, p, *m, v, *(x / np.sqrt(v + eps) for x in m), 1 / np.sqrt(v + eps)]
        factors = []
        for row, col in zip(rows, cols, strict=True):
            if g.ndim > 1:
                relative = (row + eps) / (row.mean(self.largest, keepdims=True) + eps)
                factors.append(1 / np.sqrt(relative) / np.sqrt(col + eps))
            else:
                factors.append(1 / np.sqrt(row + eps))
        features += [g * f for f in factors]
        features += [*rows, *cols]
        features += [1 / np.sqrt(x + eps) for x in (*rows, *cols)]
        features += [x * f for x, f in zip(m, factors, strict=True)]
        assert len(features) == 28
        return [f / np.sqrt(np.mean(f**2) + self.star.feature_eps) for f in features]

    def update(self, p, g):
        """What is to be added to p."""
        star = self.star
        m, v, rows, cols = self.statistics(g)
        time = [np.full(p.shape, np.tanh(self.t / scale - 1)) for scale in TIMES]
        x = np.stack(self.features(p, g, m, v, rows, cols) + time, axis=-1)
        for i in range(len(self.network)):
            x = (np.maximum(x, 0) if i else x) @ self.network[f"layer_{i}"]["weights"]
            x = x + self.network[f"layer_{i}"]["biases"]
        heads = iter(np.moveaxis(x, -1, 0))
        direction = next(heads)
        if star.normalised:
            direction = direction / np.sqrt(np.mean(direction**2))
        black_box = star.step_scale * direction
        if star.learned_magnitude:
            a = next(heads)
            black_box = black_box * np.exp(star.exponent_scale * (a.mean() if star.average_magnitude else a))
        root = np.sqrt(v + star.second_moment_eps)
        aggmo = sum(m) / 3
        if star.preconditioner == "second-moment":
            black_box = black_box / np.sqrt(v + star.preconditioner_eps)
        if star.preconditioner == "rms":
            length = orthogonal(aggmo, aggmo / root)[1] if star.nominal == "orthogonal" else 1
            black_box = black_box * length * np.sqrt(np.mean((aggmo / root) ** 2) + star.feature_eps)
        new = p - black_box
        if star.nominal != "none":
            a = next(heads)
            direction = {
                "sgd": g,
                "momentum": m[0],
                "aggmo": aggmo,
                "adam": m[0] / root,
                "adam-aggmo": aggmo / root,
                "orthogonal": orthogonal(aggmo, aggmo / root)[0] if star.nominal == "orthogonal" else None,
            }[star.nominal]
            a = a.mean() if star.average_nominal_magnitude else a
            new = new - star.nominal_scale * np.exp(star.exponent_scale * a) * direction
        if star.clipping_threshold:
            rms = np.sqrt(np.mean((aggmo / root) ** 2) + star.feature_eps)
            new = p + min(star.clipping_threshold / rms, 1) * (new - p)
        if star.early_decay and p.ndim > 1:
            new = new - star.early_decay / (1 + self.t / 1000) ** 6 * p
        if star.relative:
            new = p + max(np.sqrt(np.mean(p**2)), 0.01) * (new - p)
        if star.weight_decay > 0:
            new = new - star.weight_decay * np.exp(star.exponent_scale * next(heads)) * p
        assert next(heads, None) is None
        return new - p


def orthogonal(momentum, adam):
    """The polynomial of singular values, as large as Adam's direction times a number, and that number.

    The tensors are in their own layout.
    """
    axes = sorted(range(momentum.ndim), key=lambda axis: (momentum.shape[axis], axis))
    moved = momentum if momentum.ndim < 2 or momentum.shape[-1] >= 16 else np.moveaxis(momentum, axes[-1], -1)
    matrix = moved.reshape(-1, moved.shape[-1]) if moved.ndim > 1 else np.zeros((1, 1))
    if min(matrix.shape) < 3:
        return adam, 1
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    found = (u * s @ v).reshape(moved.shape)
    if moved is not momentum:
        found = np.moveaxis(found, -1, axes[-1])
    length = np.sqrt(32 / max(matrix.shape))
    return length * found * np.sqrt(np.mean(adam**2) / np.mean(found**2)), length


VARIANTS = [
    {"nominal": nominal, "preconditioner": preconditioner, "bias_correction": bias_correction}
    for nominal, preconditioner, bias_correction in itertools.product(
        get_args(Nominal), get_args(Preconditioner), (True, False)
    )
] + [
    {"learned_magnitude": False},
    {"normalised": True, "learned_magnitude": False},
    {"normalised": True, "preconditioner": "rms"},
    {"relative": True},
    {"clipping_threshold": 0.5},
    {"early_decay": 0.1},
    {"early_decay": 0.1, "relative": True},
    {"clipping_threshold": 0.5, "nominal": "orthogonal", "preconditioner": "rms"},
    {"average_magnitude": True},
    {"average_nominal_magnitude": True},
    {"weight_decay": 0.0},
    {"hidden": ()},
    {"hidden": (4, 4, 4)},
    {"feature_eps": 1e-2, "second_moment_eps": 1e-3, "preconditioner_eps": 1e-1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: ",".join(map(str, options.values())))
def test_every_update_is_the_plain_one(options, make_theta, quick_jit, x64):
    assert_plain(options, make_theta, quick_jit, SHAPES)


@pytest.mark.parametrize("options", [{}, {"nominal": "orthogonal", "preconditioner": "rms"}], ids=str)
def test_wide_matrices_in_their_own_layout(options, make_theta, quick_jit, x64):
    assert_plain(options, make_theta, quick_jit, WIDE)


def assert_plain(options, make_theta, quick_jit, shapes):
    star = Star(**(SCALES | options))
    theta = make_theta(star, scale=0.1)
    transform = star.transform(theta)
    update = quick_jit(transform.update)
    plain_theta = jax.tree.map(np.asarray, theta)
    rng = np.random.default_rng(0)
    params = {str(shape): rng.normal(size=shape) for shape in shapes}
    plain = {str(shape): PlainStar(star, plain_theta, shape) for shape in shapes}
    state = transform.init(params)
    for _ in range(2):
        grads = {k: rng.normal(size=p.shape) * rng.exponential(size=p.shape[-1:]) for k, p in params.items()}
        if "(5,)" in grads:
            grads["(5,)"][2] = 0.0  # a parameter that has never had a gradient
        updates, state = update(grads, state, params)
        for shape, p in params.items():
            expected = plain[shape].update(p, grads[shape])
            np.testing.assert_allclose(updates[shape], expected, rtol=1e-10, atol=1e-12, err_msg=shape)
            params[shape] = p + expected
