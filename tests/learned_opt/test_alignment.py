"""The controller of step sizes against a plain NumPy reading of its definition, and what it promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learned_opt import Star, alignment

OPTIONS = {"preconditioner": "rms", "nominal_scale": 0.02, "step_scale": 0.03, "exponent_scale": 0.5}
ALIGNED, PLAIN = Star(aligned=True, weight_decay=0.0, **OPTIONS), Star(weight_decay=0.0, **OPTIONS)
TIMES = np.array([1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5])
SHAPES = [(), (5,), (4, 3), (2, 2, 3), (3,), (2, 2)]


class PlainController:
    """All tensors, as flat vectors; averages without any correction, for a cosine does not see it."""

    def __init__(self, theta, sizes):
        self.theta, self.t = theta["controller"], 0
        self.m = [np.zeros((3, size)) for size in sizes]
        self.v = [np.zeros(size) for size in sizes]
        self.log_step = np.ones(len(sizes))
        self.tensors, self.everywhere = np.zeros((len(sizes), 2, 3)), np.zeros((2, 3))

    def factors(self, params, grads, steps):
        self.t += 1
        parts = []
        for i, g in enumerate(grads):
            self.v[i] = 0.999 * self.v[i] + 0.001 * g**2
            weight = 1 / np.sqrt(self.v[i] / (1 - 0.999**self.t) + 1e-16)
            m = self.m[i]
            parts.append([(weight * g * m).sum(1), (weight * m * m).sum(1), np.full(3, (weight * g * g).sum())])
            for k, decay in enumerate((0.9, 0.99, 0.999)):
                m[k] = decay * m[k] + (1 - decay) * g
        parts = np.array(parts)
        if self.t > 1:  # before it there are no momenta
            cosines = parts[:, 0] / np.sqrt(parts[:, 1] * parts[:, 2])
            total = parts.sum(0)
            together = total[0] / np.sqrt(total[1] * total[2])
        else:
            cosines, together = np.zeros((len(grads), 3)), np.zeros(3)
        for k, rate in enumerate((0.9, 0.99)):
            self.tensors[:, k] = rate * self.tensors[:, k] + (1 - rate) * cosines
            self.everywhere[k] = rate * self.everywhere[k] + (1 - rate) * together
        return np.array([self.factor(i, params[i], steps[i]) for i in range(len(grads))])

    def factor(self, i, param, step):
        correction = 1 - np.array([[0.9], [0.99]]) ** self.t
        aligned = 5 * np.concatenate([(self.tensors[i] / correction).ravel(), (self.everywhere / correction).ravel()])
        rms = np.sqrt(np.mean(step**2)) * np.exp(self.log_step[i])
        relative = np.clip(np.log(rms / (np.sqrt(np.mean(param**2)) + 1e-3)) / 4, -3, 3)
        x = np.concatenate([aligned, [relative], np.tanh(self.t / TIMES - 1)])
        hidden = np.tanh(x @ self.theta["hidden"]["weights"] + self.theta["hidden"]["biases"])
        change, now = hidden @ self.theta["out"]["weights"] + self.theta["out"]["biases"]
        start = np.repeat([0, 0.6, 0, 0.3], 3)  # of the tensor and of all, over 10 and 100 steps
        change += aligned @ (start + self.theta["alignments"]) + 0.6 * (1 + self.t / 100) ** -0.5
        highest = min(2 + np.log(1 + self.t / 1000), 4)
        self.log_step[i] = np.clip(self.log_step[i] + 0.035 * np.tanh(change), -8, highest)
        return np.exp(self.log_step[i] + now) * (1 + self.t / 500) ** -0.3 * (len(self.m) / 4) ** -0.5


def fixed_decays(theta):
    return theta | {"decays": jax.tree.map(jnp.zeros_like, theta["decays"])}


def test_every_step_is_the_plain_one_times_the_factor(make_theta, quick_jit, x64):
    theta = fixed_decays(make_theta(ALIGNED, scale=0.1))
    plain_theta = {key: theta[key] for key in ("network", "decays")}
    aligned, plain = ALIGNED.transform(theta), PLAIN.transform(plain_theta)
    aligned_update, plain_update = quick_jit(aligned.update), quick_jit(plain.update)
    rng = np.random.default_rng(0)
    params = [rng.normal(size=shape) for shape in SHAPES]
    states = aligned.init(params), plain.init(params)
    controller = PlainController(jax.tree.map(np.asarray, theta), [p.size for p in params])
    for _ in range(8):
        grads = [rng.normal(size=p.shape) + 0.3 for p in params]
        updates, aligned_state = aligned_update(grads, states[0], params)
        steps, plain_state = plain_update(grads, states[1], params)
        states = aligned_state, plain_state
        factors = controller.factors([p.ravel() for p in params], [g.ravel() for g in grads], steps)
        for update, step, factor in zip(updates, steps, factors, strict=True):
            np.testing.assert_allclose(update, step * factor, rtol=1e-10)
        np.testing.assert_allclose(states[0].alignment.log_step, controller.log_step, rtol=1e-10)
        params = [p + u for p, u in zip(params, updates, strict=True)]
    assert np.ptp(controller.log_step) > 0.01


def test_decay_is_not_scaled(make_theta, quick_jit, x64):
    """What weight decay removes does not depend on the step size."""
    params = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3)}
    theta = fixed_decays(make_theta(Star(aligned=True)))
    theta["controller"]["out"]["biases"] = jnp.array([0.0, -50.0])  # no step but the decay
    star = Star(aligned=True, weight_decay=0.1, exponent_scale=0.0)
    transform = star.transform(theta)
    updates, _ = quick_jit(transform.update)(params, transform.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 * params["w"], rtol=1e-9)


def train(star, theta, grad, start, steps):
    transform = star.transform(theta)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(grad(params), state, params)
        return (params + updates, state), state.alignment.log_step

    return jax.lax.scan(step, (start, transform.init(start)), length=steps)


@pytest.mark.parametrize(("scale", "direction"), [(1e-2, 1), (1.0, -1)])
def test_it_finds_a_step_size_without_meta_training(scale, direction):
    """A quadratic of condition 100: a step too short is lengthened, one too long shortened, and both end well."""
    curvatures = jnp.geomspace(0.01, 1, 20)
    star = Star(aligned=True, preconditioner="rms", weight_decay=0.0, nominal_scale=scale)
    theta = star.init(jax.random.key(0))
    (params, _), log_steps = train(star, theta, lambda w: curvatures * w, jnp.ones(20), 200)
    assert jnp.sum(curvatures * params**2) < 1e-3 * curvatures.sum()
    assert jnp.abs(log_steps - alignment.FIRST).max() > 1
    assert jnp.sign(log_steps[-1] - alignment.FIRST) == direction


def test_a_zero_start_is_the_nominal_term_alone(quick_jit, x64):
    """Adam-AggMo times the factors of a controller that is the same for every key."""
    star = Star(aligned=True, zero_start=True, weight_decay=0.0, **OPTIONS)
    thetas = [star.init(jax.random.key(seed)) for seed in (0, 1)]
    params = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3)}
    first, second = (
        quick_jit(t.update)(params, t.init(params), params)[0]["w"] for t in (star.transform(theta) for theta in thetas)
    )
    np.testing.assert_array_equal(first, second)
    factor = np.exp(1 + 0.035 * np.tanh(0.6 * 1.01**-0.5)) * (1 + 1 / 500) ** -0.3
    np.testing.assert_allclose(first, -0.02 * factor * jnp.sign(params["w"]), rtol=1e-10)


def test_relative_steps_are_in_proportion_to_the_tensor(quick_jit, x64):
    """Twice the tensor, twice the step, as far as its network sees neither: its features are normalised."""
    star = Star(aligned=True, relative=True, zero_start=True, weight_decay=0.0, **OPTIONS)
    theta = star.init(jax.random.key(0))
    transform = star.transform(theta)
    small, grads = {"w": jnp.linspace(-1, 1, 12)}, {"w": jnp.ones(12)}
    large = jax.tree.map(lambda p: 2 * p, small)
    update = quick_jit(transform.update)
    steps = [update(grads, transform.init(p), p)[0]["w"] for p in (small, large)]
    np.testing.assert_allclose(steps[1], 2 * steps[0], rtol=1e-10)


def test_the_controller_sees_no_scale_of_the_loss(make_theta, x64):
    theta = fixed_decays(make_theta(ALIGNED))
    found = [
        train(ALIGNED, theta, lambda w, s=s: s * (jnp.cos(w) + w), jnp.linspace(-1, 1, 6), 20)[1] for s in (1e-3, 1e3)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_number_of_meta_parameters():
    controller = jax.eval_shape(alignment.init_controller, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(controller)) == 24 * 8 + 8 + 8 * 2 + 2 + 12 == 230


@pytest.mark.parametrize("params", [{"w": jnp.zeros((3, 2))}, {"w": jnp.zeros(4), "none": None}])
def test_no_gradient_no_step(params, quick_jit):
    """Where nothing is known of a tensor its step stays finite, and its log step grows slowly."""
    theta = ALIGNED.init(jax.random.key(0))
    transform = ALIGNED.transform(theta)
    state, update = transform.init(params), quick_jit(transform.update)
    for _ in range(3):
        updates, state = update(params, state, params)
    assert np.all(np.isfinite(updates["w"]))
    changes = 0.035 * np.tanh(0.6 * (1 + np.arange(1, 4) / 100) ** -0.5)
    np.testing.assert_allclose(state.alignment.log_step, 1 + changes.sum(), rtol=1e-5)
