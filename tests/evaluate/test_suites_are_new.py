"""No task of an out-of-distribution suite has a data set and architecture that a preset meta-trains on."""

import pytest

from learned_opt.evaluate import suites
from learned_opt.meta_train.presets import PRESETS
from learned_opt.tasks import registry

NAMES = {
    "ood-small": suites.OOD_SMALL,
    "ood": suites.OOD,
    "ood-long": suites.OOD_LONG,
    "ood-images": suites.OOD_IMAGES,
}


def pair(name: str) -> tuple[str, str]:
    return registry.tasks()[name.partition("+")[0]].pair


@pytest.mark.parametrize("suite", NAMES)
def test_ood_tasks_are_unseen(suite) -> None:
    """By any preset."""
    seen = {pair(name) for make in PRESETS.values() for name in make().tasks}
    assert ("digits", "mlp") in seen
    assert not seen & {pair(name) for name in NAMES[suite]}
    assert len(set(NAMES[suite])) == len(NAMES[suite])


def test_as_many_as_stated_and_nothing_to_download() -> None:
    assert len({pair(name) for name in suites.OOD_SMALL}) == len(suites.OOD_SMALL) >= 12
    assert len(suites.OOD) >= 24
    downloaded = {"mnist", "fashion_mnist", "cifar10", "sotu"}
    for name in (*suites.OOD_SMALL, *suites.OOD, *suites.OOD_LONG):
        assert registry.tasks()[name].data not in downloaded
    assert {registry.tasks()[name].data for name in suites.OOD_IMAGES} == downloaded


def test_wider_deeper_and_longer() -> None:
    """Four times as wide, three times as deep and ten times as long as the preset mixture."""
    mixture = PRESETS["mixture"]()
    seen = [dict(registry.family(n.partition("+")[0]).network.options).get("hidden", (32,)) for n in MLPS_OF_MIXTURE]
    ood = suites.suite("ood").tasks
    hidden = [dict(family.network.options).get("hidden", (32,)) for n, family in ood.items() if "-mlp" in n]
    assert max(map(max, hidden)) == 4 * max(map(max, seen))
    assert max(map(len, hidden)) == 3 * max(map(len, seen))
    assert suites.suite("ood-long").horizons[-1] == 10 * mixture.max_horizon


def test_in_distribution_is_the_mixture() -> None:
    assert PRESETS["mixture"]().tasks == tuple(suites.suite("in-distribution").tasks)


MLPS_OF_MIXTURE = [name for name in PRESETS["mixture"]().tasks if "-mlp" in name]


def test_a_missing_set_refuses_the_whole_suite(monkeypatch, tmp_path) -> None:
    """Results of a suite are of all of its tasks: none is left out in silence."""
    from learned_opt.errors import UsageError
    from learned_opt.tasks import datasets

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LEARNED_OPT_CACHE", str(tmp_path))
    datasets.load.cache_clear()
    with pytest.raises(UsageError, match=r"^data set 'mnist' is not prepared .* run once: pip install"):
        suites.suite("ood-images").make()
