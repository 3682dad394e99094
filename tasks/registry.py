"""Tasks by name: the built-in table, and those that users add."""

import functools
import importlib.metadata
from collections.abc import Callable, Mapping

import jax

from learned_opt import errors
from learned_opt.tasks import table
from learned_opt.tasks.augmentations import (
    GradientNoise,
    GradientRescaled,
    LossRescaled,
    LowPrecision,
    SmallerBatches,
)
from learned_opt.tasks.base import TaskFamily
from learned_opt.tasks.delay import DelayedGradients
from learned_opt.tasks.entry import Entry
from learned_opt.tasks.reparametrise import Reparametrised

GROUP = "learned_opt.tasks"
TASKS: dict[str, Entry] = {entry.name: entry for entry in table.ENTRIES}
AUGMENTATIONS: dict[str, Callable[[TaskFamily], TaskFamily]] = {
    "reparametrised": Reparametrised,
    "reparametrised-task": functools.partial(Reparametrised, low=1e-3, high=1e3, per="task"),
    "reparametrised-weight": functools.partial(Reparametrised, low=1e-3, high=1e3, per="weight"),
    "loss-rescaled": LossRescaled,
    "gradients-rescaled": GradientRescaled,
    "noise": GradientNoise,
    "low-precision": LowPrecision,
    "small-batches": SmallerBatches,
    "delayed": DelayedGradients,
}


def register(entry: Entry) -> None:
    """Adds a task. Adding the same entry again changes nothing.

    Raises:
        UsageError: another task has its name.
    """
    if TASKS.setdefault(entry.name, entry) is not entry:
        raise errors.UsageError(f"task {entry.name!r} exists already: another name is accepted")


def tasks() -> Mapping[str, Entry]:
    """All tasks by name: built in, registered, and those of installed packages.

    A package adds those in the table `TASKS` of a module, names to entries, by an entry point of the group
    `learned_opt.tasks` that names the module.

    Raises:
        UsageError: two tasks have one name, or an entry point names no module with such a table.
    """
    _add_installed()
    return TASKS


def family(name: str) -> TaskFamily:
    """The task family called `name`, its data loaded; `NAME+AUGMENTATION...` is augmented, the last one outermost.

    Raises:
        UsageError: the name is unknown, its data set is not prepared, or the task cannot be augmented so.
    """
    plain, *augmentations = name.split("+")
    if plain not in tasks():
        raise errors.unknown("task", plain, tasks())
    for augmentation in augmentations:
        if augmentation not in AUGMENTATIONS:
            raise errors.unknown("augmentation", augmentation, AUGMENTATIONS)
    found = TASKS[plain].make()
    for augmentation in augmentations:
        found = AUGMENTATIONS[augmentation](found)
    if augmentations:  # what cannot be augmented so says it here, before anything is written
        jax.eval_shape(lambda key: found.task(found.sample(key)).sample_batch(key, "train"), jax.random.key(0))
    return found


def floor(name: str) -> float:
    """The floor that the entry of `name`, or of `name` before its augmentations, states; 0 for names without an entry.

    0 too where an augmentation multiplies losses by a factor that it draws.
    """
    plain, *augmentations = name.split("+")
    if plain not in tasks() or "loss-rescaled" in augmentations:
        return 0.0
    return TASKS[plain].floor


@functools.cache
def _add_installed() -> None:
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            entries = point.load().TASKS.values()
        except (ImportError, AttributeError) as error:
            raise errors.UsageError(
                f"entry point {point.name!r} of {GROUP} was given {point.value!r}: "
                f"a module with a table TASKS is accepted ({error})"
            ) from error
        for entry in entries:
            register(entry)
