"""What a command says: lines for people, one JSON object for programs, progress, logging."""

import dataclasses
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from geohsal.workflows.progress import Progress


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The voice of one command.

    With `as_json`, stdout holds one object and nothing else; what is meant for people then goes
    nowhere, and progress and warnings go to stderr as always. `verbosity` is -1, 0, 1 or 2.
    """

    as_json: bool = False
    verbosity: int = 0

    def line(self, text: str) -> None:
        """A line for people."""
        if not self.as_json and self.verbosity >= 0:
            click.echo(text)

    def result(self, summary: Any, lines: Iterable[str] | None = None) -> None:
        """The outcome: `lines` for people (else one per field), all fields for programs."""
        if self.as_json:
            click.echo(json.dumps(plain(summary), ensure_ascii=False))
            return
        for text in describe(plain(summary)) if lines is None else lines:
            click.echo(text)

    @contextmanager
    def progress(self) -> "Iterator[Progress]":
        """A bar on a terminal, lines elsewhere, silence with -q."""
        from geohsal.workflows.progress import Lines, Silent

        if self.verbosity < 0:
            yield Silent()
        elif sys.stderr.isatty():
            from geohsal.cli.terminal import Bar

            with Bar() as bar:
                yield bar
        else:
            lines = Lines(lambda text: click.echo(text, err=True))
            try:
                yield lines
            finally:
                lines.done()


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, which tests and notebooks replace."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"geohsal: {record.levelname.lower()}: {self.format(record)}", err=True)


@contextmanager
def logging_to_stderr(verbosity: int) -> Iterator[None]:
    """Warnings go to stderr (-v: information, -vv: everything, -q: only errors) for a while."""
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)
    logger, handler = logging.getLogger("geohsal"), _StderrHandler()
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def plain(value: Any) -> Any:
    """Dataclasses, paths, enums and numpy values as what JSON knows; NaN becomes null."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [item.name for item in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def describe(values: Any, indent: str = "") -> Iterator[str]:
    """One line per field of a plain mapping; inner mappings and long lists are indented."""
    if not isinstance(values, dict):
        yield f"{indent}{_short(values)}"
        return
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        label = f"{indent}{name}" if indent else name.replace("_", " ")  # inner keys may be ids
        if isinstance(value, dict) and value:
            yield f"{label}:"
            yield from describe(value, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, dict | str) for item in value):
            yield f"{label}:"
            for item in value:
                yield f"{indent}  {_inline(item)}"
        elif value not in (None, [], {}, ""):
            yield f"{label}:{' ' * (width - len(name) + 1)}{_short(value)}"


def _inline(item: Any) -> str:
    if isinstance(item, dict):
        return ", ".join(f"{key} {_short(value)}" for key, value in item.items())
    return _short(item)


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return str(value)
