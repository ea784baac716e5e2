"""How a workflow tells that it moves: a small protocol, silence, and plain lines for logs.

The bar for terminals lives in `geohsal.cli`; workflows know only the protocol.
"""

import time
from collections.abc import Callable
from typing import Protocol

LINE_SECONDS = 10.0
LINE_SHARE = 0.1
SHORT_SECONDS = 1.0


class Progress(Protocol):
    """One task at a time: `start`, then `advance` until `total`, then `done`."""

    def start(self, label: str, total: int) -> None:
        """A task of `total` units begins; an unfinished one before it ends."""

    def advance(self, amount: int = 1) -> None:
        """`amount` more units are done."""

    def done(self) -> None:
        """The task is over, complete or not."""


class Silent:
    """Says nothing."""

    def start(self, label: str, total: int) -> None:
        """Nothing to say."""

    def advance(self, amount: int = 1) -> None:
        """Nothing to say."""

    def done(self) -> None:
        """Nothing to say."""


class Lines:
    """A line at the start, then one whenever both a tenth of the work and ten seconds passed.

    Args:
        write: takes one line without its end.
        clock: seconds that only grow.
    """

    def __init__(
        self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._label = ""
        self._total = 0
        self._count = 0
        self._said_count = 0
        self._began = self._said_at = 0.0

    def start(self, label: str, total: int) -> None:
        """Name the task."""
        self.done()
        self._label, self._total, self._count, self._said_count = label, total, 0, 0
        self._began = self._said_at = self._clock()
        self._write(f"{label}: {total} to do")

    def advance(self, amount: int = 1) -> None:
        """Speak when enough has happened."""
        self._count += amount
        now = self._clock()
        enough = self._count - self._said_count >= LINE_SHARE * self._total
        if enough and now - self._said_at >= LINE_SECONDS:
            self._said_at, self._said_count = now, self._count
            percent = round(100 * self._count / max(self._total, 1))
            self._write(f"{self._label}: {percent} %, {now - self._began:.0f} s")

    def done(self) -> None:
        """Say how long it took, unless that was nothing."""
        if self._label:
            seconds = self._clock() - self._began
            if seconds >= SHORT_SECONDS:
                self._write(f"{self._label}: {self._count} of {self._total} done, {seconds:.0f} s")
            self._label = ""
