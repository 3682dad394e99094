"""Many particles on many devices: the only place with `vmap` over particles and `pmap` over devices."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree

from learned_opt import errors
from learned_opt.base import Theta
from learned_opt.meta_train.estimator import Estimate, EstimatorState, MetaGradientEstimator
from learned_opt.meta_train.shaping import Shaping, shape

AXIS = "devices"
MOST = 16  # outer steps that one call takes: what a call costs besides them is small then


class OuterState(NamedTuple):
    """Meta-parameters and the state of the outer optimizer, the same on every device."""

    theta: Theta
    opt_state: optax.OptState


class Component(NamedTuple):
    """A task family in the mixture: its estimator, how many particles it has, and the weight of its meta-gradient."""

    estimator: MetaGradientEstimator
    particles: int
    weight: float = 1.0


class OuterSteps:
    """Initialises and advances the particles of all components of a mixture, and updates theta.

    The particle axis of a component is global: particle i draws from the same keys wherever it lives, so that the
    number of devices changes results only by the order of a sum. Components of any shapes share one program.
    """

    def __init__(
        self,
        components: Sequence[Component],
        outer_optimizer: optax.GradientTransformation,
        devices: Sequence[jax.Device] | None = None,
        shaping: Shaping = "none",
        normalise_gradients: bool = False,
    ) -> None:
        """Uses `devices` (default: all, of every process), which must divide the particles of every component.

        `normalise_gradients` scales the meta-gradient of each component to a norm of 1 before they are averaged.
        """
        self.devices = list(jax.devices() if devices is None else devices)
        self.particles = np.array([component.particles for component in components])
        if (self.particles % len(self.devices)).any():
            accepted = [n for n in range(1, len(self.devices)) if not (self.particles % n).any()]
            given = ", ".join(map(str, dict.fromkeys(self.particles.tolist())))
            raise errors.UsageError(
                f"{given} particles cannot be shared equally by {len(self.devices)} devices: "
                f"accepted are device counts that divide the particles, such as {accepted[-1]}"
            )
        self.outer_optimizer = outer_optimizer
        self.shaping = shaping
        self.normalise_gradients = normalise_gradients
        self.weights = np.array([component.weight for component in components], np.float32)
        self.mesh = jax.sharding.Mesh(np.asarray(self.devices), AXIS)
        self.indices = self.scatter(tuple(np.arange(n) for n in self.particles))
        self._init = self._pmap(self._init_on_device, (None, None, None, 0), 0)
        in_axes = (None, None, 0, None, None, None, 0)
        self._run = self._pmap(self._run_on_device, in_axes, (None, 0, None), donate_argnums=(1, 2))
        self.estimators = self.replicate(tuple(component.estimator for component in components))
        self._in_flight: dict[str, jax.Array] = {}

    def init(self, key: jax.Array, theta: Theta) -> tuple[EstimatorState, ...]:
        """Fresh particles, one state for each component; leading axes are devices and particles of a device."""
        arguments = self.estimators, jax.random.key_data(key), theta, self.indices
        # It runs once: compiling it well would take several times as long.
        return self._init.lower(*arguments).compile({"xla_backend_optimization_level": 0})(*arguments)

    def init_outer(self, theta: Theta) -> OuterState:
        """A fresh outer optimizer."""
        return self.replicate(OuterState(theta, self.outer_optimizer.init(theta)))

    def replicate(self, tree: Any) -> Any:
        """A copy on every device; arguments placed as results will be, or the second step would compile again."""
        # Arrays, as processes that place a Python number compare it with what its float32 has become.
        return jax.device_put(jax.tree.map(jnp.asarray, tree), jax.NamedSharding(self.mesh, jax.P()))

    def step(
        self, outer: OuterState, states: tuple[EstimatorState, ...], key: jax.Array, index: int = 0
    ) -> tuple[OuterState, tuple[EstimatorState, ...], dict[str, Any]]:
        """One step of `run`, and its metrics alone, on the host."""
        outer, states, metrics = self.run(outer, states, key, index, 1)
        return outer, states, {name: values[0] for name, values in jax.device_get(metrics).items()}

    def run(
        self, outer: OuterState, states: tuple[EstimatorState, ...], key: jax.Array, first: int, count: int
    ) -> tuple[OuterState, tuple[EstimatorState, ...], dict[str, jax.Array]]:
        """Outer steps `first` to `first + count`, at most `MOST`, in one program whatever their count.

        An outer step is one truncation of every particle and one outer update; step i draws from `fold_in(key, i)`, so
        that it matters to no bit how many go together. Consumes `outer` and `states`. Where no particle of any
        component is finite, theta and the outer optimizer stay as they are. Metrics have an axis of `MOST` steps first,
        of which `count` count; those of components have an entry for each then.
        """
        # Steps of forced CPU devices that queue without bound deadlock in their collectives: one call is in flight at
        # most.
        jax.block_until_ready(self._in_flight)
        numbers = np.int32(first), np.int32(count)
        arguments = self.estimators, outer, states, jax.random.key_data(key), *numbers, self.indices
        result = self._run(*arguments)
        self._in_flight = result[2]
        return result

    def gather(self, states: tuple[EstimatorState, ...]) -> Any:
        """States as host arrays with one leading axis, the global particle axis; the same on every process."""
        if jax.process_count() > 1:
            states = multihost_utils.process_allgather(states, tiled=True)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), states)

    def scatter(self, states: Any) -> tuple[EstimatorState, ...]:
        """The inverse of `gather`, for any number of devices."""
        return jax.device_put(
            jax.tree.map(lambda x: x.reshape(len(self.devices), -1, *x.shape[1:]), states),
            jax.NamedSharding(self.mesh, jax.P(AXIS)),
        )

    def _pmap(self, function: Any, in_axes: Any, out_axes: Any, **options: Any) -> Any:
        return jax.pmap(function, AXIS, in_axes=in_axes, out_axes=out_axes, devices=self.devices, **options)

    def _init_on_device(self, estimators: Any, key_data: jax.Array, theta: Theta, indices: Any) -> Any:
        keys = jax.random.split(jax.random.wrap_key_data(key_data), len(estimators))
        return tuple(
            jax.vmap(estimator.init, (0, None))(_particle_keys(key, own), theta)
            for estimator, key, own in zip(estimators, keys, indices, strict=True)
        )

    def _run_on_device(
        self,
        estimators: Any,
        outer: OuterState,
        states: Any,
        key_data: jax.Array,
        first: jax.Array,
        count: jax.Array,
        indices: Any,
    ) -> Any:
        key = jax.random.wrap_key_data(key_data)
        step = jax.jit(self._step_on_device)  # traced once, for its shapes and in the loop: that takes seconds

        def next_step(i: jax.Array, carry: Any) -> Any:
            outer, states, metrics = carry
            outer, states, own = step(estimators, outer, states, jax.random.fold_in(key, first + i), indices)
            return outer, states, jax.tree.map(lambda all_, x: all_.at[i].set(x), metrics, own)

        shapes = jax.eval_shape(step, estimators, outer, states, key, indices)[2]
        metrics = jax.tree.map(lambda x: jnp.zeros((MOST, *x.shape), x.dtype), shapes)
        return jax.lax.fori_loop(0, count, next_step, (outer, states, metrics))

    def _step_on_device(self, estimators: Any, outer: OuterState, states: Any, key: jax.Array, indices: Any) -> Any:
        keys = jax.random.split(key, len(estimators))
        found = [
            jax.vmap(estimator.estimate, (None, 0, 0))(outer.theta, state, _particle_keys(key, own))
            for estimator, state, key, own in zip(estimators, states, keys, indices, strict=True)
        ]
        estimates, new_states = zip(*found, strict=True)
        gradients, metrics = means_over_particles(estimates, self.shaping)
        live = metrics["dropped"] < self.particles
        gradient, metrics["gradient_norm_of_family"] = self._mix(gradients, live)
        updates, opt_state = self.outer_optimizer.update(gradient, outer.opt_state, outer.theta)
        new_outer = OuterState(optax.apply_updates(outer.theta, updates), opt_state)
        outer = jax.tree.map(lambda new, old: jnp.where(live.any(), new, old), new_outer, outer)
        metrics |= {
            "gradient_norm": optax.tree.norm(gradient),
            "gradient_max": optax.tree.norm(gradient, ord="inf"),
            "update_norm": optax.tree.norm(updates),
            "theta_norm": optax.tree.norm(outer.theta),
        }
        return outer, new_states, metrics

    def _mix(self, gradients: Any, live: jax.Array) -> tuple[Theta, jax.Array]:
        """The weighted mean of the components' gradients, and the norm of each; only live components have a say."""
        norms = jax.vmap(optax.tree.norm)(gradients)
        share = jnp.where(live, self.weights, 0)
        share = share / jnp.where(live.any(), share.sum(), 1)
        if self.normalise_gradients:
            share = jnp.where(norms > 0, share / jnp.where(norms > 0, norms, 1), 0)
        return jax.tree.map(lambda g: jnp.tensordot(share.astype(g.dtype), g, 1), gradients), norms


def _particle_keys(key: jax.Array, indices: jax.Array) -> jax.Array:
    """A key for every particle of this device, by its global index."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def means_over_particles(estimates: Sequence[Estimate], shaping: Shaping = "none") -> tuple[Theta, dict[str, Any]]:
    """Mean gradients and metrics of components, over all particles of all devices, each weighted by its inner steps.

    Their leading axis is that of components. Dropped particles have weight 0: they take no part in the mean, and the
    metric `dropped` counts them.
    """
    here = [_sums(own, shaping) for own in estimates]
    weights, sums, counts = _over_devices(jax.tree.map(lambda *x: jnp.stack(x), *here))
    totals = jnp.maximum(weights, 1)
    gradients, metrics = jax.tree.map(lambda x: (x.T / totals.astype(x.dtype)).T, sums)
    return gradients, metrics | counts


def _sums(estimates: Estimate, shaping: Shaping) -> tuple[jax.Array, tuple[Theta, dict[str, Any]], dict[str, Any]]:
    """Over the particles of this device: of weights, of weighted gradients and metrics, and of counts."""
    weight = estimates.weight.astype(jnp.float32)
    if shaping != "none":
        here = jax.lax.axis_index(AXIS) * weight.size
        differences, weights = jax.lax.all_gather((estimates.difference, weight), AXIS, tiled=True)
        shaped = jax.lax.dynamic_slice_in_dim(shape(differences, weights, shaping), here, weight.size)
        estimates = estimates._replace(difference=shaped)
    gradients = jax.vmap(lambda estimate: estimate.gradient)(estimates)
    metrics = {"loss": estimates.loss} | {name: estimates.metrics[name] for name in ("objective", "clipped")}
    counts = {name: estimates.metrics[name].sum() for name in ("dropped", "overflow", "underflow", "inner_steps")}
    weighted = jax.tree.map(lambda x: jnp.tensordot(weight.astype(x.dtype), x, 1), (gradients, metrics))
    return weight.sum(), weighted, counts


def _over_devices(tree: Any) -> Any:
    """The sum over devices of every leaf, as one array for each dtype: CPU devices wait for each other at each."""
    leaves, structure = jax.tree.flatten(tree)
    for dtype in dict.fromkeys(x.dtype for x in leaves):
        alike = [i for i, x in enumerate(leaves) if x.dtype == dtype]
        flat, restore = ravel_pytree([leaves[i] for i in alike])
        for i, x in zip(alike, restore(jax.lax.psum(flat, AXIS)), strict=True):
            leaves[i] = x
    return jax.tree.unflatten(structure, leaves)
