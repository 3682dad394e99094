"""No task of an out-of-distribution suite has a data set and architecture that a preset meta-trains on."""

from learned_opt.evaluate import suites
from learned_opt.meta_train.presets import PRESETS
from learned_opt.tasks import registry


def pair(name: str) -> tuple[str, str]:
    return registry.tasks()[name.partition("+")[0]].pair


def test_ood_tasks_are_unseen() -> None:
    seen = {pair(name) for make in PRESETS.values() for name in make().tasks}
    assert ("digits", "mlp") in seen
    assert len(suites.OOD_SMALL) >= 12
    assert not seen & {pair(name) for name in suites.OOD_SMALL}
    assert len({pair(name) for name in suites.OOD_SMALL}) == len(suites.OOD_SMALL)


def test_in_distribution_is_the_mixture() -> None:
    assert PRESETS["mixture"]().tasks == tuple(suites.suite("in-distribution").tasks)
