import jax
import jax.numpy as jnp
import pytest

from learned_opt.adam import LearnableAdam
from learned_opt.evaluate import benchmark, contenders
from learned_opt.evaluate.suites import Suite
from learned_opt.tasks import datasets
from learned_opt.tasks.networks.architecture import architecture
from learned_opt.tasks.networks.mlp import MLP
from learned_opt.tasks.reparametrise import Reparametrised
from learned_opt.tasks.supervised import Supervised

HORIZONS = (12, 20)
SEEDS = 3


def tiny_tasks():
    family = Supervised(
        datasets.load("digits", size=8), architecture(MLP, hidden=(4,)), activations=("relu",), batch_size=8
    )
    return {"tiny": family, "tiny-reparametrised": Reparametrised(family)}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Nothing is read from, or left in, the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEARNED_OPT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def suite():
    return Suite("tiny", "for tests", tiny_tasks)


@pytest.fixture(scope="session")
def learnable_adam():
    """Adam at 1e-3 by another road."""
    theta = LearnableAdam().init(jax.random.key(0))
    return contenders.learned("meta", LearnableAdam(), theta, {"sha256": "abc", "config": {"max_horizon": 15}})


@pytest.fixture(scope="session")
def reports():
    return []


@pytest.fixture(scope="session")
def results(suite, learnable_adam, reports):
    jnp.zeros(())  # JAX starts before the clock does
    entrants = [learnable_adam, contenders.parse("adam@1e-3"), contenders.parse("adam@1e38")]
    return benchmark.run(suite, entrants, SEEDS, HORIZONS, progress=lambda done, total: reports.append((done, total)))
