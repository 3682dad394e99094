"""Checkpoints for exact resume: written whole, verified when read, and never trusted until verified."""

import hashlib
import logging
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from learned_opt.base import Theta
from learned_opt.checkpoints import trees

_log = logging.getLogger(__name__)
# Orbax logs dozens of lines for each save, and its own complaints about every damaged file that we report in one line.
_ORBAX = str(Path(ocp.__file__).parent)
logging.getLogger("absl").addFilter(lambda record: not record.pathname.startswith(_ORBAX))


class Checkpoint(NamedTuple):
    """What a run needs to go on as if it had never stopped."""

    step: int
    theta: Theta
    state: Any


class CheckpointStore:
    """The newest `keep` checkpoints of a run. Use as a context manager, or `close()` it.

    With several processes, all of them call each method, with the same arrays.
    """

    def __init__(self, directory: Path, keep: int = 3) -> None:
        """Opens the store, creating `directory` if need be; nothing in it is touched before the first `save`."""
        self._directory = Path(directory).absolute()
        self._keep = keep
        self._corrupt: set[int] = set()
        self._manager = self._open()

    def save(self, step: int, theta: Theta, state: Any) -> None:
        """Writes a checkpoint; when this returns it is on disk and whole. All leaves are non-empty arrays, no keys.

        Raises:
            ValueError: `step` does not come after the newest checkpoint.
        """
        self._clear_the_way()
        items = {"theta": trees.to_arrays(theta), "state": trees.to_arrays(state)}
        args = {name: ocp.args.PyTreeSave(arrays) for name, arrays in items.items()}
        digests = ocp.args.JsonSave({name: _digest(arrays) for name, arrays in items.items()})
        if not self._manager.save(step, args=ocp.args.Composite(**args, digests=digests)):
            raise ValueError(f"step {step} does not come after step {self._manager.latest_step()}, saved already")

    def newest(self, theta_like: Theta, state_like: Any) -> Checkpoint | None:
        """The newest whole checkpoint, bit for bit, as numpy arrays; None if there is none.

        Damaged checkpoints are passed over with one warning each in the log, and set aside by the next `save`.

        Raises:
            UsageError: the checkpoint is whole, but its trees, shapes or dtypes are not those of `*_like`.
        """
        found = self._newest("theta", "state")
        if found is None:
            return None
        step, theta, state = found
        source = self._directory / str(step)
        return Checkpoint(step, trees.rebuild(theta_like, theta, source), trees.rebuild(state_like, state, source))

    def newest_theta(self, theta_like: Theta) -> Theta | None:
        """As `newest`, without reading the state."""
        found = self._newest("theta")
        if found is None:
            return None
        step, theta = found
        return trees.rebuild(theta_like, theta, self._directory / str(step))

    @property
    def newest_path(self) -> Path | None:
        """Where the newest checkpoint is, whole or not; None if there is none."""
        step = self._manager.latest_step()
        return None if step is None else self._directory / str(step)

    def close(self) -> None:
        """Frees what Orbax holds."""
        self._manager.close()

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes the store."""
        self.close()

    def _newest(self, *items: str) -> tuple[Any, ...] | None:
        """The newest step whose `items` are whole, and the arrays of each."""
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return step, *self._restore(step, items)
            except Exception as error:  # damage has no type of its own: anything may be raised by anything
                self._corrupt.add(step)
                reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
                _log.warning("%s: not whole, passed over: %s", self._directory / str(step), reason)
        return None

    def _restore(self, step: int, items: Iterable[str]) -> list[dict[str, np.ndarray]]:
        args = {name: ocp.args.PyTreeRestore() for name in items}
        restored = self._manager.restore(step, args=ocp.args.Composite(**args, digests=ocp.args.JsonRestore()))
        arrays = {name: {path: np.asarray(leaf) for path, leaf in restored[name].items()} for name in items}
        for name in items:
            if _digest(arrays[name]) != restored["digests"][name]:
                raise ValueError(f"the sha256 of its {name} differs")
        return list(arrays.values())

    def _clear_the_way(self) -> None:
        """Removes what a killed save left, and renames damaged checkpoints, which would count as the newest ones."""
        if jax.process_index() == 0:
            for leftover in self._directory.glob(f"*{ocp.path.atomicity_types.TMP_DIR_SUFFIX}*"):
                shutil.rmtree(leftover)
            for step in self._corrupt:
                aside = self._directory / f"corrupt-{step}"
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
        if self._corrupt:
            ocp.multihost.sync_global_processes("learned_opt: damaged checkpoints are out of the way")
            self._manager.close()
            self._manager = self._open()  # its own `reload` stumbles over a damaged checkpoint
            self._corrupt.clear()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            enable_async_checkpointing=False,  # a save that has returned survives a kill
            lightweight_initialize=True,  # lists the checkpoints unread, so that a damaged one cannot be in the way
        )
        one_by_one = ocp.type_handlers.create_type_handler_registry((np.ndarray, _OneByOne()))
        handlers = {
            "theta": ocp.PyTreeCheckpointHandler(type_handler_registry=one_by_one),
            "state": ocp.PyTreeCheckpointHandler(type_handler_registry=one_by_one),
            "digests": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)


class _OneByOne(ocp.type_handlers.NumpyHandler):
    """Reads one array after the other.

    Orbax reads all at once; when one is damaged, the other reads end on a closed event loop, each printing a traceback.
    """

    async def deserialize(self, infos: Sequence[Any], args: Sequence[Any] | None = None) -> list[np.ndarray]:
        """The arrays that `infos` describe."""
        arrays: list[np.ndarray] = []
        for info, arg in zip(infos, args or [None] * len(infos), strict=True):
            arrays += await super().deserialize([info], arg and [arg])
        return arrays


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """The sha256 of all names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for path, array in sorted(arrays.items()):
        digest.update(f"{path} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
