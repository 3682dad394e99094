"""Meta-gradient estimators by name."""

from typing import Any, Literal, get_args

from learned_opt import errors
from learned_opt.meta_train.estimator import MetaGradientEstimator
from learned_opt.meta_train.forward import Forward
from learned_opt.meta_train.full_backprop import FullBackprop
from learned_opt.meta_train.full_es import FullES
from learned_opt.meta_train.noise_reuse_es import NoiseReuseES
from learned_opt.meta_train.perturbation import Perturbation
from learned_opt.meta_train.pes import PES
from learned_opt.meta_train.truncated_backprop import TruncatedBackprop
from learned_opt.meta_train.truncated_es import TruncatedES
from learned_opt.meta_train.unroll import Unroller

EstimatorName = Literal[
    "pes", "noise-reuse-es", "full-es", "truncated-es", "truncated-backprop", "full-backprop", "forward"
]
PERTURBING: dict[str, Any] = {
    "pes": PES,
    "noise-reuse-es": NoiseReuseES,
    "full-es": FullES,
    "truncated-es": TruncatedES,
}


def make(name: str, unroller: Unroller, perturbation: Perturbation) -> MetaGradientEstimator:
    """The estimator called `name`; those that follow derivatives have no use for `perturbation`.

    Raises:
        UsageError: there is none.
    """
    if name in PERTURBING:
        return PERTURBING[name](unroller=unroller, perturbation=perturbation)
    if name == "truncated-backprop":
        return TruncatedBackprop(unroller=unroller)
    if name == "full-backprop":
        return FullBackprop(unroller=unroller, truncations=-(-unroller.horizons.longest // unroller.truncation))
    if name == "forward":
        return Forward(unroller=unroller)
    raise errors.unknown("estimator", name, get_args(EstimatorName))
