"""Progress on a terminal, drawn by rich."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """Satisfies `geohsal.workflows.progress.Progress`; a context manager around the drawing."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def start(self, label: str, total: int) -> None:
        """A new bar below the finished ones."""
        self._bars.add_task(label, total=total)

    def advance(self, amount: int = 1) -> None:
        """Move the last bar."""
        if self._bars.task_ids:
            self._bars.advance(self._bars.task_ids[-1], amount)

    def done(self) -> None:
        """Leave the bar as it stands."""
        if self._bars.task_ids:
            self._bars.stop_task(self._bars.task_ids[-1])
