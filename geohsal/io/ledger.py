"""The ledger of a run: what was spent, when, on which region; replays to the labelled mask.

One JSON object per line, only ever appended. The entries of one `append` are a batch: a batch
that a killed process left unfinished is ignored when reading and cut off by the next append.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import DataError
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import unwritten
from geohsal.io.label_store import FIRST_ANSWER_REGION, LabelArrays, Rows

FORMAT_VERSION = 1
Cell = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One region taken in (`ingest`), or one whole round taken back (`undo`: only round and time).

    `cell` is (row, col, height, width) on the scene's grid. `pixels` were spent: valid and not yet
    labelled when asked, whatever the reviewer did with them; `labelled_pixels` of the cell got a
    class and `unknown_pixels` of the spent ones got none. `classes_rle` holds the class ids burnt
    in the cell, row by row, 255 where nothing (see `encode_classes`). `seconds` is the time spent
    by the cost model or the clock, of all reviewers together; `time` is UTC in ISO 8601.
    `status` is the reviewer's, or `settled` where only reviewers' differences were decided.
    `answers` is the number of answer polygons that the cost model expects, None where unknown;
    `seen` holds (reviewer, ms since 1970) of every review with a time stamp. `teacher_wrong` and
    `refined_wrong` count the labelled pixels in which the round's maps had been wrong.
    """

    event: Literal["ingest", "undo"]
    round: int
    time: str
    scene_id: str = ""
    region_id: str = ""
    region_number: int = 0
    cell: Cell = (0, 0, 0, 0)
    pixels: int = 0
    labelled_pixels: int = 0
    unknown_pixels: int = 0
    area_m2: float | None = None
    seconds: float = 0.0
    status: str = ""
    audit: bool = False
    classes_rle: str = ""
    reviewer: str | None = None
    reviewed_ms: int | None = None
    source: str = ""
    answers: int | None = None
    seen: tuple[tuple[str, int], ...] = ()
    teacher_wrong: int | None = None
    refined_wrong: int | None = None


_FIELDS = {field.name for field in dataclasses.fields(LedgerEntry)}


def encode_classes(classes: NDArray[np.uint8]) -> str:
    """Row-major run lengths of class ids: `255*12 3*4` is 12 times 255, then 4 times 3."""
    flat = classes.ravel()
    if flat.size == 0:
        return ""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    return " ".join(f"{code}*{length}" for code, length in zip(flat[starts], lengths, strict=True))


def decode_classes(text: str, *, height: int, width: int) -> NDArray[np.uint8]:
    """Class ids (row, col) from `encode_classes`.

    Raises:
        DataError: the text is damaged or has not height x width pixels.
    """
    try:
        runs = [(int(code), int(length)) for code, length in (r.split("*") for r in text.split())]
        codes = np.array([code for code, _ in runs], dtype=np.uint8)
        return np.repeat(codes, [length for _, length in runs]).reshape(height, width)
    except (ValueError, OverflowError):
        raise DataError(
            f"ledger: the classes of a {height} x {width} cell are damaged ({text[:40]!r})"
        ) from None


def append(path: Path, entries: Sequence[LedgerEntry]) -> None:
    """Add entries as one batch: all of them count, or none; flushed to disk before returning.

    Raises:
        DataError: the ledger is damaged or cannot be written.
    """
    if not entries:
        return
    lines = [
        json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "batch": [index, len(entries)],
                **dataclasses.asdict(entry),
            },
            ensure_ascii=False,
        )
        for index, entry in enumerate(entries)
    ]
    _, end = _scan(path)
    data = ("\n".join(lines) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(end)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritten(path, error) from error


def read_ledger(path: Path) -> list[LedgerEntry]:
    """All entries in order, undone ones and undo events included; [] where there is no ledger.

    Raises:
        DataError: a line before the last batch is damaged, or the file is of a newer version.
    """
    return _scan(path)[0]


def _scan(path: Path) -> tuple[list[LedgerEntry], int]:
    """Entries of finished batches, and the byte where the last of them ends."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    entries: list[LedgerEntry] = []
    pending: list[LedgerEntry] = []
    position = end = 0
    lines = data.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        if last and not line.endswith(b"\n"):
            break
        entry, index, count = _parse(line, where=f"{path}: line {number}")
        if index != len(pending):
            raise DataError(f"{path}: line {number}: entries are missing before it; restore it")
        pending.append(entry)
        position += len(line)
        if len(pending) == count:
            entries.extend(pending)
            pending, end = [], position
    return entries, end


def _parse(line: bytes, *, where: str) -> tuple[LedgerEntry, int, int]:
    try:
        values: dict[str, Any] = json.loads(line)
        version = values.pop("format_version")
        index, count = values.pop("batch")
        if version > FORMAT_VERSION:
            raise DataError(f"{where}: written by a newer geohsal (format {version}); update it")
        known = {name: value for name, value in values.items() if name in _FIELDS}
        row, col, height, width = known["cell"]
        known["cell"] = (row, col, height, width)
        known["seen"] = tuple((str(who), int(ms)) for who, ms in known.get("seen", ()))
        return LedgerEntry(**known), int(index), int(count)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: damaged ({error}); restore the file from a copy") from None


def active_entries(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The `ingest` entries that stand: an undo takes back all earlier ones of its round."""
    standing: list[LedgerEntry] = []
    for entry in entries:
        if entry.event == "undo":
            standing = [kept for kept in standing if kept.round != entry.round]
        else:
            standing.append(entry)
    return standing


def replay(
    base: LabelArrays, entries: Iterable[LedgerEntry], *, top: int = 0, height: int | None = None
) -> LabelArrays:
    """The manifest's labels of one scene with that scene's standing entries burnt in, in order.

    `labels/<scene>.tif` equals this at any time.

    Args:
        base: the manifest's labels of the scene, or of its rows from `top` on.
        entries: of the scene.
        top: first row of `base`.
        height: rows of the scene, where `base` does not hold all of them.

    Raises:
        DataError: an entry's cell or classes do not fit the scene.
    """
    labels = base.copy()
    rows, width = labels.classes.shape
    scene_rows = rows if height is None else height
    for entry in active_entries(entries):
        row, col, cell_rows, cell_cols = entry.cell
        if min(row, col) < 0 or row + cell_rows > scene_rows or col + cell_cols > width:
            raise DataError(
                f"ledger: region {entry.region_id} reaches outside scene {entry.scene_id} "
                f"({scene_rows} x {width} pixels)"
            )
        first, last = max(row, top), min(row + cell_rows, top + rows)
        if first >= last:
            continue
        area = (slice(first - top, last - top), slice(col, col + cell_cols))
        burnt = decode_classes(entry.classes_rle, height=cell_rows, width=cell_cols)
        burnt = burnt[first - row : last - row]
        known = burnt != IGNORE_INDEX
        labels.classes[area][known] = burnt[known]
        labels.regions[area][known] = entry.region_number
        labels.rounds[area][known] = entry.round
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class _BurntPlane:
    """One plane of a scene's labels with answers burnt in, made when its rows are asked for."""

    base: Callable[[slice], LabelArrays]
    entries: Sequence[LedgerEntry]
    name: str
    height: int

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        burnt = replay(self.base(rows), self.entries, top=rows.start, height=self.height)
        plane: NDArray[Any] = getattr(burnt, self.name)
        return plane


def replayed_planes(
    base: Callable[[slice], LabelArrays], entries: Sequence[LedgerEntry], *, height: int
) -> tuple[Rows, Rows, Rows]:
    """Classes, regions and rounds as `replay` gives them, whatever rows are asked for.

    Args:
        base: the manifest's labels of some rows of the scene.
        entries: of the scene.
        height: rows of the scene.
    """
    classes, regions, rounds = (
        _BurntPlane(base=base, entries=entries, name=name, height=height)
        for name in ("classes", "regions", "rounds")
    )
    return classes, regions, rounds


def next_region_number(entries: Iterable[LedgerEntry], scene_id: str) -> int:
    """A number that no answered region of the scene has had, undone ones included."""
    used = [entry.region_number for entry in entries if entry.scene_id == scene_id]
    return max([FIRST_ANSWER_REGION - 1, *used]) + 1
