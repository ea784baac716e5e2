"""What an ingest tells: what it took, how good the questions were, how far reviewers agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from geohsal.io.manifest import Manifest
from geohsal.io.review_read import Review, ReviewedRound
from geohsal.query.agreement import Agreement, agreement
from geohsal.workflows.review_worth import ReviewWorth

Action = Literal[
    "ingested", "would ingest", "settled", "would settle", "undone", "would undo", "nothing"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What an ingest took in, took back, settled, or (`action` nothing) found already done.

    Counts of answers are of prefilled polygons in done regions, `left_out` is what `problems`
    names; `changed_labels` lists where answers overrule earlier labels; `worth` says how often the
    maps had been wrong there; `agreement` compares every two reviews that share done regions.
    `conflict_pixels` are unknown because reviewers differ, `settled_pixels` no longer.
    `prices` says what a reviewer's time is counted at from now on. `diagnostics` are lines on maps
    and questions, `advice` says whether another round is worth it; both only after an ingest.
    """

    action: Action
    round: int
    files: tuple[str, ...] = ()
    done: int = 0
    unsure: int = 0
    skipped: int = 0
    todo: int = 0
    accepted: int = 0
    corrected: int = 0
    added: int = 0
    deleted: int = 0
    left_out: int = 0
    labelled_pixels: int = 0
    unknown_pixels: int = 0
    conflict_pixels: int = 0
    settled_pixels: int = 0
    class_pixels: Mapping[str, int] | None = None
    classes: tuple[str, ...] = ()
    changed_labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    worth: ReviewWorth | None = None
    agreement: tuple[Agreement, ...] = ()
    conflict_file: Path | None = None
    prices: str = ""
    diagnostics: tuple[str, ...] = ()
    advice: str = ""


def summary_of(
    review: ReviewedRound,
    manifest: Manifest,
    *,
    action: Action,
    changes: tuple[str, ...],
    notes: tuple[str, ...],
    worth: ReviewWorth | None,
    settled_pixels: int,
    conflict_file: Path | None,
    prices: str,
) -> IngestSummary:
    """A round's review in numbers."""
    counts = review.counts
    return IngestSummary(
        action=action,
        round=review.round,
        files=tuple(review.contents),
        done=counts.done,
        unsure=counts.unsure,
        skipped=counts.skipped,
        todo=counts.todo,
        accepted=counts.accepted,
        corrected=counts.corrected,
        added=counts.added,
        deleted=counts.deleted,
        left_out=counts.left_out,
        labelled_pixels=sum(counts.class_pixels.values()),
        unknown_pixels=counts.unknown_pixels,
        conflict_pixels=sum(int(item.conflict.sum()) for item in review.regions),
        settled_pixels=settled_pixels,
        class_pixels={
            info.name: counts.class_pixels.get(info.class_id, 0) for info in manifest.classes
        },
        classes=tuple(manifest.class_names),
        changed_labels=changes,
        notes=(*review.notes, *notes),
        problems=review.problems,
        worth=worth,
        agreement=agreements(review, num_classes=manifest.num_classes),
        conflict_file=conflict_file,
        prices=prices,
    )


def agreements(review: ReviewedRound, *, num_classes: int) -> tuple[Agreement, ...]:
    """One entry per two files that both did some region."""
    pairs: dict[tuple[str, str], list[tuple[Review, Review]]] = {}
    for item in review.regions:
        done = [found for found in item.reviews if found.status == "done"]
        for one, other in combinations(done, 2):
            pairs.setdefault((one.source, other.source), []).append((one, other))
    return tuple(
        agreement(
            _label(one, [first for first, _ in found]),
            _label(other, [second for _, second in found]),
            [(first.classes, second.classes) for first, second in found],
            num_classes=num_classes,
        )
        for (one, other), found in pairs.items()
    )


def _label(source: str, reviews: Sequence[Review]) -> str:
    names = sorted({review.reviewer for review in reviews if review.reviewer})
    return f"{source} ({', '.join(names)})" if names else source


def conflict_notes(review: ReviewedRound) -> tuple[str, ...]:
    """One line per region in which reviewers differ."""
    return tuple(
        f"region {item.region.region_id}: reviewers differ in {int(item.conflict.sum())} px"
        for item in review.regions
        if item.conflict.any()
    )
