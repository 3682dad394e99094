"""STAR: a small per-parameter MLP optimizer with stabilising inductive biases (arXiv 2209.11208)."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from learned_opt import alignment, errors, features, kernel, native, statistics, steps, together
from learned_opt.alignment import Products
from learned_opt.base import Theta, working_dtype
from learned_opt.nominal import Nominal
from learned_opt.statistics import Decays, Statistics
from learned_opt.steps import Preconditioner

SMALLEST_SIZE = 0.01  # of a tensor, for relative steps: one that starts at zero must move too
# Early decay falls as (1 + t / FADING)^-FADE: it keeps weights small while they find what they fit, and is gone before
# it would hold up a loss that nears zero.
FADING, FADE = 1000.0, 6.0


class StarState(NamedTuple):
    """Number of updates so far, and `Statistics` whose fields are trees like the parameters, as in optax's own states.

    Flax's `nnx.Optimizer` loses named tuples that lie deeper, inside such a tree. `alignment` is an
    `alignment.Alignment`, or () without the controller or tensors.
    """

    count: jax.Array  # type: ignore[assignment]  # hides tuple.count, as optax's states do
    statistics: Statistics
    alignment: Any


class Proposal(NamedTuple):
    """What STAR would do to one tensor, a wide dimension last, before the controller has its say.

    step: what is added, the black box and the nominal term with a minus. decay: what is added for the weights' decay,
    or 0. products: of the gradient and the momenta before it, or (). statistics: new ones, or () where they are known.
    """

    step: jax.Array
    decay: jax.Array | float
    products: Any
    statistics: Any


@dataclass(frozen=True, kw_only=True)
class Star:
    """The STAR optimizer; `Star()` is the full preset and every stabiliser has a switch. 207 meta-parameters.

    For each parameter p with gradient g, an MLP shared by all tensors maps 39 features to heads d, a, a_n, a_r, and

        black box  b = step_scale * d * exp(exponent_scale * a) * P
        nominal    n = nominal_scale * exp(exponent_scale * a_n) * N
        decay      r = 1 - weight_decay * exp(exponent_scale * a_r)
        p'         = r p - (b + n) * f

    with N the nominal direction, P the output preconditioner and f the factor of the tensor: 1, unless `relative` or
    `aligned`. The third stabiliser of the paper, weight decay on the meta-parameters, belongs to meta-training.
    Statistics are bias-corrected, which the published code does not do: the first steps are better with it. And the
    second moment remembers at least as long as the momenta (`statistics.decays`): no theta can undo that.

    Attributes:
        nominal: N. `adam-aggmo` is the mean over three momenta m_i / sqrt(v); `none` removes the term and its head.
            `orthogonal`, for matrices, is the orthogonal factor of the mean of the momenta, a step alike in all
            directions, as in Muon. It is as large as `adam-aggmo`, which it is for other tensors, in a matrix with 32
            rows or columns, and smaller in a larger one, with its largest singular value alike; so is P by `rms` there.
            Not in the paper.
        preconditioner: P. `second-moment`: 1 / sqrt(v), as published; `rms`: the root mean square over the tensor of
            the Adam-AggMo direction, which keeps the black box in proportion to the nominal term; `none`: 1.
        normalised: whether d is divided by its root mean square over the tensor (Celo2, arXiv 2602.19142).
        learned_magnitude: whether the black box has the head a.
        average_magnitude: whether a is averaged over its tensor.
        average_nominal_magnitude: whether a_n is averaged over its tensor.
        clipping_threshold: the step of a tensor is divided by what the root mean square of its Adam-AggMo direction is
            above this, as in Adafactor: gradients that surge are ahead of v, and one step could undo all; 0: never.
        weight_decay: at most this share of a parameter is removed in one step (at exp(.) = 1); 0 removes the head.
        early_decay: this share of every matrix is added to its step, ever less of it: see `FADING`; 0 adds nothing. It
            is not learned, and f multiplies it as it does the step. Not in the paper.
        relative: whether f has the root mean square of the tensor, at least 0.01, as in Adafactor (arXiv 1804.04235).
        aligned: whether f has the step size of the tensor, which the controller of `learned_opt.alignment`, 230
            meta-parameters more, moves with the alignment of gradients. Not in the paper; step sizes then tune
            themselves, from any scale.
        zero_start: whether `init` leaves the last layer at zero: meta-training starts from the nominal term alone.
        momentum_decays: those of the three momenta, where `init` starts them.
        bias_correction: divide every running average by `1 - decay^t`.
        hidden: widths of the hidden layers.
        step_scale, nominal_scale, exponent_scale: published values, 1e-3 each.
        feature_eps: added to the mean square a feature is divided by. The published 1e-5 hides the features of tensors
            with small gradients.
        second_moment_eps: added to v under the root, in features and in the nominal term.
        preconditioner_eps: the same in the `second-moment` preconditioner, where it bounds the first step of a
            parameter whose gradient has been zero so far.
    """

    nominal: Nominal = "adam-aggmo"
    preconditioner: Preconditioner = "second-moment"
    normalised: bool = False
    learned_magnitude: bool = True
    average_magnitude: bool = False
    average_nominal_magnitude: bool = False
    clipping_threshold: float = 0.0
    weight_decay: float = 1e-5
    early_decay: float = 0.0
    relative: bool = False
    aligned: bool = False
    zero_start: bool = False
    momentum_decays: tuple[float, ...] = statistics.MOMENTUM_DECAYS
    bias_correction: bool = True
    hidden: tuple[int, ...] = (4, 4)
    step_scale: float = 1e-3
    nominal_scale: float = 1e-3
    exponent_scale: float = 1e-3
    feature_eps: float = 1e-18
    second_moment_eps: float = 1e-16
    preconditioner_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Refuses switches that do not exist and numbers that no step could have."""
        for name, accepted in (("nominal", get_args(Nominal)), ("preconditioner", get_args(Preconditioner))):
            if getattr(self, name) not in accepted:
                raise errors.unknown(f"value of Star.{name}", str(getattr(self, name)), accepted)
        if len(self.momentum_decays) != 3 or not all(0 <= decay < 1 for decay in self.momentum_decays):
            raise errors.UsageError(
                f"Star.momentum_decays was given {self.momentum_decays}: three numbers from 0 to below 1 are accepted"
            )
        if not all(width >= 1 for width in self.hidden):
            raise errors.UsageError(f"Star.hidden was given {self.hidden}: widths from 1 are accepted")
        errors.check_floats(self)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        switches = {
            "direction": True,
            "magnitude": self.learned_magnitude,
            "nominal": self.nominal != "none",
            "decay": self.weight_decay > 0,
        }
        return tuple(name for name, on in switches.items() if on)

    def init(self, key: jax.Array) -> Theta:
        """Weights from a truncated normal of deviation 1 / sqrt(fan-in), zero biases, published decays."""
        sizes = (features.PER_PARAMETER + len(features.TIME_SCALES), *self.hidden, len(self.heads))
        keys = jax.random.split(key, len(sizes) - 1)
        initializer = jax.nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        network = {
            f"layer_{i}": {"weights": initializer(k, (sizes[i], sizes[i + 1])), "biases": jnp.zeros(sizes[i + 1])}
            for i, k in enumerate(keys)
        }
        theta = {"network": network, "decays": statistics.init_decays(self.momentum_decays)}
        if self.zero_start:
            last = f"layer_{len(keys) - 1}"
            network[last] = jax.tree.map(jnp.zeros_like, network[last])
        if not self.aligned:
            return theta
        return theta | {"controller": alignment.init_controller(jax.random.fold_in(key, len(sizes)))}

    def transform(self, theta: Theta) -> optax.GradientTransformationExtraArgs:
        """The optimizer. Its `update` needs `params`; statistics are kept in float32 or wider."""

        def init(params: optax.Params) -> StarState:
            leaves, structure = jax.tree.flatten(params)
            stats = [statistics.init(statistics.wide_axis_last(jnp.asarray(p)), working_dtype(p)) for p in leaves]
            widest = jnp.result_type(jnp.float32, *map(working_dtype, leaves))
            return StarState(
                jnp.zeros((), jnp.int32),
                _transpose(structure, stats),
                alignment.init(len(leaves), widest) if self.aligned and leaves else (),
            )

        def update(
            updates: optax.Updates, state: StarState, params: optax.Params | None = None, **extra: Any
        ) -> tuple[optax.Updates, StarState]:
            del extra
            if params is None:
                raise ValueError("STAR needs the parameters: call update(grads, state, params)")
            count = optax.safe_increment(state.count)
            structure: Any = jax.tree.structure(params)
            grads, leaves, *stats = (structure.flatten_up_to(tree) for tree in (updates, params, *state.statistics))
            moved = (
                [statistics.wide_axis_last(jnp.asarray(x, working_dtype(p))) for x, p in zip(t, leaves, strict=True)]
                for t in (grads, leaves)
            )
            owned = [Statistics(*own) for own in zip(*stats, strict=True)]

            proposals = self._proposals(theta, count, list(zip(*moved, owned, strict=True)))
            factors, aligned = self._factors(theta, state.alignment, leaves, proposals, count)
            return (
                structure.unflatten(map(_finish, leaves, proposals, factors)),
                StarState(count, _transpose(structure, [p.statistics for p in proposals]), aligned),
            )

        return optax.GradientTransformationExtraArgs(init, update)

    def _factors(
        self, theta: Theta, state: Any, params: list[jax.Array], proposals: list[Proposal], count: jax.Array
    ) -> tuple[list[Any], Any]:
        """f of every tensor, and the new state of the controller."""
        if not (params and (self.relative or self.aligned)):
            return [1.0] * len(params), state
        dtype = jnp.result_type(jnp.float32, *map(working_dtype, params))
        sizes = jnp.stack([_rms(p, dtype) for p in params])
        factors = jnp.maximum(sizes, SMALLEST_SIZE) if self.relative else jnp.ones_like(sizes)
        if self.aligned:
            lengths = factors * jnp.stack([_rms(p.step, dtype) for p in proposals])
            products = [p.products for p in proposals]
            controlled, state = alignment.control(theta["controller"], state, products, lengths, sizes, count)
            factors = factors * controlled
        return list(factors), state

    def _proposals(self, theta: Theta, count: jax.Array, tensors: list[Any]) -> list[Proposal]:
        """Of all tensors: by machine code those that suit it, on CPUs, but for derivatives."""
        ours = [native.suits(self, param) for _, param, _ in tensors]
        if not any(ours):
            return self._plain(theta, count, tensors)

        def fast(theta: Theta, count: jax.Array, tensors: list[Any]) -> list[Proposal]:
            others = iter(self._plain(theta, count, [t for t, own in zip(tensors, ours, strict=True) if not own]))
            flat = native.scalars(self, theta["network"], _decays(theta, jnp.dtype(jnp.float32)), count)
            apart = self.relative or self.aligned
            return [
                Proposal(*native.propose(self, flat, apart, *tensor)) if own else next(others)
                for tensor, own in zip(tensors, ours, strict=True)
            ]

        @jax.custom_jvp
        def chosen(*args: Any) -> list[Proposal]:
            return jax.lax.platform_dependent(*args, cpu=fast, default=self._plain)

        @chosen.defjvp
        def jvp(primals: Any, tangents: Any) -> Any:
            return jax.jvp(self._plain, primals, tangents)

        return chosen(theta, count, tensors)

    def _plain(self, theta: Theta, count: jax.Array, tensors: list[Any]) -> list[Proposal]:
        """The same as XLA makes it, small tensors of one shape together."""
        stages = functools.partial(self._refresh, theta), functools.partial(self._propose, theta, count)
        found = together.each(stages, tensors)
        return [proposal._replace(statistics=proposal.statistics or new) for new, proposal in found]

    def early_share(self, t: jax.Array) -> jax.Array:
        """The share of a matrix that goes with its step after `t` updates."""
        return self.early_decay * (1 + t / FADING) ** -FADE

    def _refresh(self, theta: Theta, grad: jax.Array, param: jax.Array, stats: Statistics) -> Any:
        """New statistics of one tensor, a wide dimension last, or () where a kernel makes them with the step."""
        if not param.size:  # a mean over nothing is NaN, and would reach the state and every meta-gradient
            return stats
        return () if kernel.suits(self, param) else statistics.update(stats, grad, _decays(theta, param.dtype))

    def _propose(
        self, theta: Theta, count: jax.Array, grad: jax.Array, param: jax.Array, before: Statistics, stats: Any
    ) -> Proposal:
        """The step of that tensor before any control; `stats`, or (), are those that `_refresh` made of `before`."""
        dtype = param.dtype
        if not param.size:
            zeros = Products(jnp.zeros(3, dtype), jnp.zeros(3, dtype), jnp.zeros((), dtype))
            return Proposal(param, 0.0, zeros, ())
        arguments = theta["network"], _decays(theta, dtype), grad, param, before
        if kernel.suits(self, param):
            found = Proposal(*kernel.propose(self, *arguments, count))
        else:
            found = Proposal(*steps.step(self, *arguments, stats, count), ())
        if self.early_decay and param.ndim > 1:
            found = found._replace(step=found.step + self.early_share(count.astype(dtype)) * param)
        if self.relative or self.aligned:
            return found._replace(step=-found.step, decay=-found.decay)
        # Where no factor comes between them they leave as one: for two results of a loop the network runs twice.
        return found._replace(step=-(found.step + found.decay), decay=0.0)


def black_box_mlp(**options: Any) -> Star:
    """The plain black-box MLP optimizer: STAR's statistics, features and network with every stabiliser off.

    Two heads, `p' = p - step_scale * d * exp(exponent_scale * a)`; it shares code and features with STAR, so that a
    comparison of the two measures the stabilisers and nothing else.
    """
    return Star(**{"nominal": "none", "preconditioner": "none", "weight_decay": 0.0, **options})


def _decays(theta: Theta, dtype: jnp.dtype) -> Decays:
    return statistics.decays(jax.tree.map(lambda x: jnp.asarray(x, dtype), theta["decays"]))


def _finish(param: jax.Array, proposal: Proposal, factor: jax.Array | float) -> jax.Array:
    """The update of a tensor in its own layout and dtype."""
    step = proposal.step if isinstance(factor, float) else proposal.step * factor.astype(proposal.step.dtype)
    update = step + proposal.decay
    return statistics.restore_axes(update, jnp.shape(param)).astype(jnp.result_type(param))


def _rms(tensor: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The root mean square, 0 of nothing; its derivative is finite at zero, where biases start."""
    if not jnp.size(tensor):
        return jnp.zeros((), dtype)
    return jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(tensor, dtype))) + alignment.TINY**2)


def _transpose(structure: Any, stats: list[Statistics]) -> Statistics:
    """From the statistics of every tensor to `Statistics` of trees with that structure."""
    return Statistics(*(structure.unflatten([getattr(s, name) for s in stats]) for name in Statistics._fields))
