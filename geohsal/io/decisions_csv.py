"""decisions.csv: what a person decided on the review page of a round, one row per region.

The page writes UTF-8 with commas; what a spreadsheet makes of it when saving (a byte-order mark,
semicolons, `sep=;`, `2.0` for 2, empty lines, more columns, other letter case) is read as well. A
row without a status and a class says nothing. Every row carries the round and the request of the
query, so that no other run takes it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from geohsal.errors import ReviewError
from geohsal.io.review_schema import STATUSES

FORMAT_VERSION = 1
COLUMNS = (
    "region_id", "status", "assigned_class", "class_name", "notes", "reviewed_by", "reviewed_ms",
    "round", "request", "format_version",
)  # fmt: skip
"""Written in this order and read in any; `class_name` is for people and is not read."""

SHOWN = 10
"""Problems that one message names; the rest is counted."""

_SEPARATOR = re.compile(r'\s*"?sep=.', re.IGNORECASE)
_READ = tuple(name for name in COLUMNS if name != "class_name")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Text that begins so is written with an apostrophe before it: spreadsheets would compute it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One region: its status, and the class where all of it is that class."""

    region_id: str
    status: str
    assigned_class: int | None
    notes: str
    reviewed_by: str
    reviewed_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionsOrigin:
    """Which query a file answers; `request` is that of the review file's provenance."""

    round: int
    request: str


def read_decisions(path: Path) -> list[Decision]:
    """The decisions of a file, in its order; class ids are only known to be numbers from 0.

    Raises:
        ReviewError: it is no decisions file, or rows of it are wrong: one line that numbers them.
    """
    found: list[Decision] = []
    problems: list[str] = []
    first_at: dict[str, tuple[int, Decision]] = {}
    for line, row in _rows(path):
        try:
            decision = _decision(row)
        except ValueError as error:
            problems.append(f"row {line}: {error}")
            continue
        if decision is None:
            continue
        before, said = first_at.setdefault(decision.region_id, (line, decision))
        if said is decision:
            found.append(decision)
        elif said != decision:
            problems.append(
                f"row {line}: region {decision.region_id} is already decided in row {before}"
            )
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ReviewError(f"{path}: {'; '.join(problems[:SHOWN])}{more}")
    return found


def read_decisions_origin(path: Path) -> DecisionsOrigin:
    """Which query the decisions answer.

    Raises:
        ReviewError: it is no decisions file, holds no row, or rows of several queries.
    """
    origins: dict[tuple[str, str], int] = {}
    for line, row in _rows(path):
        if row["format_version"] not in (str(FORMAT_VERSION), f"{FORMAT_VERSION}.0"):
            raise ReviewError(
                f"{path}: row {line}: has format_version {row['format_version'] or 'none'}, this "
                f"geohsal reads {FORMAT_VERSION}"
            )
        origins.setdefault((row["round"], row["request"]), line)
    if len(origins) != 1:
        where = ", ".join(map(str, origins.values()))
        found = f"rows {where} are of several queries" if origins else "holds no decision"
        raise ReviewError(f"{path}: {found}; give what one page saved")
    ((round_, request), line), *_ = origins.items()
    try:
        number = _whole(round_, "round")
    except ValueError as error:
        raise ReviewError(f"{path}: row {line}: {error}") from None
    if number is None or not request:
        raise ReviewError(f"{path}: row {line}: does not say of which query it is")
    return DecisionsOrigin(round=number, request=request)


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """(line number, cells by column) of every row that is not empty."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ReviewError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ReviewError(f"{path}: is not UTF-8; save it as CSV UTF-8") from None
    head, _, rest = text.partition("\n")
    skipped = 1 if _SEPARATOR.match(head) else 0  # what Excel puts above the head
    if skipped:
        text, (head, _, _) = rest, rest.partition("\n")
    delimiter = max(",;\t", key=head.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = [name for name in _READ if name not in reader.fieldnames]
        if missing:
            raise ReviewError(
                f"{path}: not a decisions file (no column {', '.join(missing)}); give the "
                "decisions.csv that the review page saved"
            )
        for row in reader:
            cells = {name: (row[name] or "").strip() for name in _READ}
            if any(cells.values()):
                yield skipped + reader.line_num, cells
    except csv.Error as error:
        raise ReviewError(f"{path}: not a CSV file ({error})") from None


def _decision(row: Mapping[str, str]) -> Decision | None:
    """The decision of a row; None where it says nothing.

    Raises:
        ValueError: a cell is wrong.
    """
    region_id, status = row["region_id"], row["status"].lower()
    if not region_id:
        raise ValueError("has no region_id")
    if not status and not row["assigned_class"]:
        return None
    status = status or "todo"
    if status not in STATUSES:
        raise ValueError(f"status {row['status']!r} is none of {', '.join(STATUSES)}")
    return Decision(
        region_id=region_id,
        status=status,
        assigned_class=_whole(row["assigned_class"], "assigned_class"),
        notes=_plain(row["notes"]),
        reviewed_by=_plain(row["reviewed_by"]),
        reviewed_ms=_whole(row["reviewed_ms"], "reviewed_ms"),
    )


def _whole(text: str, name: str) -> int | None:
    if not text:
        return None
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53 or not number.is_integer():
        raise ValueError(f"{name} {text!r} is not a whole number from 0")
    return int(number)


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
