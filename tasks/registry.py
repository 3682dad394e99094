"""Task families by name."""

import functools
from collections.abc import Callable

from learned_opt import errors
from learned_opt.tasks import datasets
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.images import CNN, ImageFamily
from learned_opt.tasks.reparametrise import Reparametrised


def _mlp(data: str) -> TaskFamily:
    return ImageFamily(datasets.load(data, size=8))


def _cnn(data: str) -> TaskFamily:
    return ImageFamily(datasets.load(data, size=8), network=CNN, hidden=(16, 32))


def _reparametrised(make: Callable[[str], TaskFamily], data: str) -> TaskFamily:
    return Reparametrised(make(data))


def _families() -> dict[str, Callable[[], TaskFamily]]:
    families: dict[str, Callable[[], TaskFamily]] = {}
    for data in datasets.NAMES:
        for network, make in (("mlp", _mlp), ("cnn", _cnn)):
            name = f"{data}-{network}"
            families[name] = functools.partial(make, data)
            families[f"{name}-reparametrised"] = functools.partial(_reparametrised, make, data)
    return families


FAMILIES = _families()


def family(name: str) -> TaskFamily:
    """The task family called `name`, its data loaded.

    Raises:
        UsageError: the name is unknown, or its data set is not prepared.
    """
    if name not in FAMILIES:
        raise errors.unknown("task", name, FAMILIES)
    return FAMILIES[name]()
