"""Stopping in good order when a signal asks for it."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupted(Exception):
    """A signal ended the run after it had saved; the exit status of the program is `128 + signum`."""

    def __init__(self, signum: int, message: str) -> None:
        """`message` says what was saved."""
        super().__init__(f"{signal.Signals(signum).name}: {message}; run the same command again to go on")
        self.exit_status = 128 + signum


class Interruptible:
    """Notes SIGTERM and SIGINT instead of dying from them; a second one kills as usual."""

    def __init__(self) -> None:
        """No signal yet."""
        self.received: int | None = None

    def __enter__(self) -> Self:
        """Installs the handlers."""
        self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts the previous handlers back."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def raise_if_received(self, message: str) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(self.received, message)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self.received = signum
        for each, handler in self._previous.items():
            signal.signal(each, handler)
