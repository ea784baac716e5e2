"""Reads the reviews of a round: per region its status and per pixel the class that people gave it.

A pixel takes, by its centre: an edited or added answer first (a redrawn one before one that only
got another class), then the region's assigned class, then the untouched prefilled answer; else it
stays unknown. Where anything is wrong, nothing is taken in and all of it is named; only if asked
for, the rest is taken, and nothing is known below what is wrong. Where two people differ about a
pixel, it stays unknown until that is settled.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import ReviewError
from geohsal.geo.budget import counted
from geohsal.geo.scene import QueryRegion
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.review_burn import burn_file
from geohsal.io.review_origin import Asked
from geohsal.io.review_rows import AnswerRow, ReviewedFile, Status

SHOWN = 10
"""Problems that one message names; the rest is counted."""

_WEIGHT = {"done": 3, "unsure": 2, "skipped": 1, "todo": 0}
"""Where reviewers of a region said different things of it, the highest holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What one reviewer said of a region; `classes` as in `ReviewedRegion`."""

    source: str
    status: Status
    classes: NDArray[np.uint8]
    reviewer: str | None
    reviewed_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRegion:
    """What people said of one region.

    `classes` (row, col) covers the region's cell: class ids, 255 where nothing is known. Only
    regions whose status is done hold classes. `reviews` are those that say more than todo;
    `conflict` marks pixels to which they give different classes.
    """

    region: QueryRegion
    status: Status
    assigned_class: int | None
    classes: NDArray[np.uint8]
    conflict: NDArray[np.bool_]
    reviews: tuple[Review, ...]

    @property
    def labelled_pixels(self) -> int:
        """Pixels that got a class."""
        return int((self.classes != IGNORE_INDEX).sum())

    @property
    def unknown_pixels(self) -> int:
        """Pixels that were asked about and got none."""
        return self.region.pixels - self.labelled_pixels

    @property
    def reviewer(self) -> str | None:
        """Everybody who reviewed it."""
        names = dict.fromkeys(review.reviewer for review in self.reviews if review.reviewer)
        return ", ".join(names) or None

    @property
    def reviewed_ms(self) -> int | None:
        """The last time stamp."""
        return max((r.reviewed_ms for r in self.reviews if r.reviewed_ms is not None), default=None)

    @property
    def source(self) -> str:
        """The files that say something of it."""
        return ", ".join(review.source for review in self.reviews)


@dataclass(slots=True, kw_only=True)
class ReviewCounts:
    """How a review went: prefilled answers of done regions, regions by status, pixels.

    `left_out` counts what was wrong and was left out on demand.
    """

    accepted: int = 0
    corrected: int = 0
    added: int = 0
    deleted: int = 0
    left_out: int = 0
    done: int = 0
    unsure: int = 0
    skipped: int = 0
    todo: int = 0
    unknown_pixels: int = 0
    class_pixels: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRound:
    """All regions of a round (also those not reviewed), by rank; `contents` names the files.

    `problems` are what was left out; empty unless that was asked for. `given` holds, per review,
    its package and the regions it has rows for.
    """

    round: int
    regions: tuple[ReviewedRegion, ...]
    counts: ReviewCounts
    notes: tuple[str, ...]
    contents: Mapping[str, str]
    problems: tuple[str, ...] = ()
    given: tuple[tuple[int | None, frozenset[str]], ...] = ()


def read_reviews(
    files: Sequence[ReviewedFile], asked: Asked, *, accept_valid: bool = False
) -> ReviewedRound:
    """What files say together of the regions that were asked.

    Args:
        files: each read with `asked`.
        asked: what was asked.
        accept_valid: leave out what has problems instead of refusing everything.

    Raises:
        ReviewError: there are problems: one line that names the features.
    """
    files, doubles = _unlike(files)
    counts = ReviewCounts()
    burnt = [burn_file(file, asked) for file in files]
    if not accept_valid:
        _refuse(files)
    ranked = sorted(asked.regions.values(), key=lambda region: (region.rank, region.region_id))
    reviewed = tuple(_reviewed(region, files, burnt) for region in ranked)
    owners = _owners(files)
    for file in files:
        _count_answers(file, asked, owners, counts)
    _count_regions(reviewed, counts)
    problems = [f"{file.name}: {problem}" for file in files for problem in file.problems]
    counts.left_out = len(problems)
    return ReviewedRound(
        round=asked.index,
        regions=reviewed,
        counts=counts,
        notes=(*doubles, *_notes(files, asked)),
        contents={file.name: file.content for file in files},
        problems=tuple(problems),
        given=tuple((file.package, frozenset(file.regions)) for file in files),
    )


def _unlike(files: Sequence[ReviewedFile]) -> tuple[list[ReviewedFile], list[str]]:
    """Files that say different things, and a word on those that only repeat another."""
    kept: dict[str, ReviewedFile] = {}
    doubles = []
    for file in files:
        first = kept.setdefault(file.content, file)
        if first is not file:
            doubles.append(f"{file.name}: says the same as {first.name}; counted once")
    return list(kept.values()), doubles


def _refuse(files: Sequence[ReviewedFile]) -> None:
    problems = [problem for file in files for problem in file.problems]
    if not problems:
        return
    more = ""
    if len(problems) > SHOWN:
        more = f"; and {len(problems) - SHOWN} more (all: --accept-valid --dry-run)"
    names = ", ".join(str(file.path) for file in files if file.problems)
    raise ReviewError(
        f"{names}: nothing was taken in: {'; '.join(problems[:SHOWN])}{more}; correct this, or "
        "take in the rest with --accept-valid"
    )


def _reviewed(
    region: QueryRegion,
    files: Sequence[ReviewedFile],
    burnt: Sequence[Mapping[str, NDArray[np.uint8]]],
) -> ReviewedRegion:
    """Put together what the files say of a region."""
    nothing = np.full(region.mask.shape, IGNORE_INDEX, dtype=np.uint8)
    rows = [file.regions.get(region.region_id) for file in files]
    reviews = tuple(
        Review(
            source=file.name,
            status=row.status,
            classes=own.get(region.region_id, nothing),
            reviewer=row.reviewer,
            reviewed_ms=row.reviewed_ms,
        )
        for file, row, own in zip(files, rows, burnt, strict=True)
        if row is not None and row.status != "todo"
    )
    said = [row for row in rows if row is not None]
    best = max(said, key=lambda row: _WEIGHT[row.status], default=None)
    classes, conflict = _merged([review.classes for review in reviews], nothing)
    return ReviewedRegion(
        region=region,
        status=best.status if best else "todo",
        assigned_class=best.assigned_class if best else None,
        classes=classes,
        conflict=conflict,
        reviews=reviews,
    )


def _merged(
    said: Sequence[NDArray[np.uint8]], nothing: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Classes where all who know a pixel agree, and where they do not."""
    classes, conflict = nothing.copy(), np.zeros(nothing.shape, dtype=np.bool_)
    for own in said:
        known = own != IGNORE_INDEX
        conflict |= known & (classes != IGNORE_INDEX) & (own != classes)
        classes[known] = own[known]
    classes[conflict] = IGNORE_INDEX
    return classes, conflict


def _owners(files: Sequence[ReviewedFile]) -> dict[str, ReviewedFile]:
    """The file whose prefilled answers are counted for a done region: the first that did it."""
    owners: dict[str, ReviewedFile] = {}
    for file in files:
        for region_id, row in file.regions.items():
            if row.status == "done":
                owners.setdefault(region_id, file)
    return owners


def _count_answers(
    file: ReviewedFile, asked: Asked, owners: Mapping[str, ReviewedFile], counts: ReviewCounts
) -> None:
    rows: dict[str, list[AnswerRow]] = {}
    for row in file.answers:
        if row.record is not None:
            rows.setdefault(row.record.answer_id, []).append(row)
        elif not row.spoilt:
            counts.added += any(owners.get(name) is file for name in file.touched[row.fid])
    for answer in asked.answers.values():
        if owners.get(answer.region_id) is not file:
            continue
        found = rows.get(answer.answer_id, [])
        assigned = file.regions[answer.region_id].assigned_class
        changed = assigned not in (None, answer.suggested_class)
        if any(row.spoilt for row in found):
            continue
        if not found:
            counts.deleted += 1
        elif changed or any(row.edited for row in found):
            counts.corrected += 1
        else:
            counts.accepted += 1


def _count_regions(reviewed: Sequence[ReviewedRegion], counts: ReviewCounts) -> None:
    for item in reviewed:
        setattr(counts, item.status, getattr(counts, item.status) + 1)
        if item.status != "done":
            continue
        counts.unknown_pixels += item.unknown_pixels
        for class_id in np.unique(item.classes[item.classes != IGNORE_INDEX]).tolist():
            pixels = int((item.classes == class_id).sum())
            counts.class_pixels[class_id] = counts.class_pixels.get(class_id, 0) + pixels


def _notes(files: Sequence[ReviewedFile], asked: Asked) -> Iterator[str]:
    for file in files:
        yield from file.notes
        for row in file.regions.values():
            if row.moved:
                yield f"region {row.region_id}: its outline was changed; the cell as asked counts"
    seen = {region_id for file in files for region_id in file.regions}
    missing = sorted(set(asked.regions) - seen)
    if missing:
        shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
        verb = "has no row and stays" if len(missing) == 1 else "have no row and stay"
        yield f"{counted(len(missing), 'region')} {verb} to do: {shown}"
