"""Differences between reviewers that somebody has settled become labels."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import ReviewError, RunError
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import read_record, write_json
from geohsal.io.conflict_file import read_settlements
from geohsal.io.ledger import LedgerEntry, append, decode_classes, encode_classes
from geohsal.io.manifest import Manifest
from geohsal.io.review_origin import Origin
from geohsal.io.review_read import ReviewedRegion, ReviewedRound
from geohsal.io.round_record import read_regions
from geohsal.io.run import Round, Run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.ingest_record import burnt_pixels, now_text, rebuild, replayed_classes
from geohsal.workflows.ingest_summary import IngestSummary
from geohsal.workflows.standing import standing

Classes = NDArray[np.uint8]


def read_settled(
    paths: Sequence[Path],
    regions: Sequence[QueryRegion],
    *,
    scenes: Mapping[str, Scene],
    num_classes: int,
) -> dict[str, Classes]:
    """What conflict files settle, by region id; the later file wins.

    Raises:
        ReviewError: a file cannot be read, or a row is wrong: one line that names the features.
    """
    by_id = {region.region_id: region for region in regions}
    found: dict[str, Classes] = {}
    for path in paths:
        said = read_settlements(path, by_id, scenes=scenes, num_classes=num_classes)
        if said.problems:
            raise ReviewError(f"{path}: nothing was taken in: {'; '.join(said.problems)}")
        for name, classes in said.classes.items():
            before = found.setdefault(name, classes.copy())
            before[classes != IGNORE_INDEX] = classes[classes != IGNORE_INDEX]
    return found


def refuse_others(given: Mapping[Path, Origin], listed: str | None) -> None:
    """Settlements hold for the differences that they were made of, and for no others.

    Raises:
        ReviewError: a file lists others than `listed`.
    """
    for path, origin in given.items():
        if origin.conflicts != listed:
            raise ReviewError(
                f"{path}: lists other differences than these reviews have (they were edited or "
                "taken in anew since); leave it out, and settle the file that ingest writes"
            )


def settle_review(
    review: ReviewedRound, settled: Mapping[str, Classes]
) -> tuple[ReviewedRound, int]:
    """The review with settled pixels known, and how many there are."""
    regions, pixels = [], 0
    for item in review.regions:
        chosen = _settled(item, settled)
        at = chosen != IGNORE_INDEX
        if at.any():
            classes, conflict = item.classes.copy(), item.conflict & ~at
            classes[at] = chosen[at]
            item = replace(item, classes=classes, conflict=conflict)
            for class_id, count in zip(*np.unique(chosen[at], return_counts=True), strict=True):
                known = review.counts.class_pixels
                known[int(class_id)] = known.get(int(class_id), 0) + int(count)
            review.counts.unknown_pixels -= int(at.sum())
            pixels += int(at.sum())
        regions.append(item)
    return replace(review, regions=tuple(regions)), pixels


def _settled(item: ReviewedRegion, settled: Mapping[str, Classes]) -> Classes:
    nothing = np.full(item.classes.shape, IGNORE_INDEX, dtype=np.uint8)
    chosen = settled.get(item.region.region_id, nothing)
    return np.where(item.conflict, chosen, nothing).astype(np.uint8)


def settle_round(
    run: Run, manifest: Manifest, round_: Round, given: Mapping[Path, Origin], *, dry_run: bool
) -> IngestSummary:
    """Settle differences of a round that is ingested already, until the next one has trained.

    Raises:
        RunError: the next round has trained.
        ReviewError: nothing is settled, a row is wrong, or a file is of other differences.
    """
    if run.current.index != round_.index + 1 or run.current.step != "tiled":
        raise RunError(
            f"{run.path}: round {round_.index + 1} has trained already; differences of round "
            f"{round_.index} can no longer be settled, those pixels stay unknown"
        )
    record = read_record(round_.ingest_json, "files", "conflicts")
    refuse_others(given, record.get("conflict_set"))
    paths = list(given)
    masks = record["conflicts"]
    regions = [r for r in read_regions(round_.regions) if r.region_id in masks]
    scenes = load_scenes(run)
    settled = read_settled(paths, regions, scenes=scenes, num_classes=manifest.num_classes)
    if not settled:
        names = ", ".join(str(path) for path in paths)
        raise ReviewError(f"{names}: nothing in it is settled; set assigned_class, save, try again")
    before = standing(run, round_.index)
    entries, left = [], 0
    for region in regions:
        height, width = region.mask.shape
        conflict = decode_classes(masks[region.region_id], height=height, width=width) == 1
        now = replayed_classes(run, region, scenes[region.scene_id], before)
        chosen = settled.get(region.region_id, np.full_like(now, IGNORE_INDEX))
        changed = conflict & (chosen != IGNORE_INDEX) & (chosen != now)
        left += int((conflict & (now == IGNORE_INDEX) & ~changed).sum())
        if changed.any():
            classes = np.where(changed, chosen, IGNORE_INDEX).astype(np.uint8)
            entries.append(_entry(region, classes, before))
    standing_before = [entry for entry in before if entry.status == "settled"]
    told = sum(item.get("entries", 0) for item in record.get("settled", []))
    new = [*standing_before[told:], *entries]  # the first were written by a command that was killed
    pixels = burnt_pixels(new)
    summary = IngestSummary(
        action="would settle" if dry_run else "settled",
        round=round_.index,
        files=tuple(origin.name for origin in given.values()),
        settled_pixels=pixels,
        conflict_pixels=left,
        labelled_pixels=pixels,
        conflict_file=round_.conflicts if left else None,
    )
    if dry_run:
        return summary
    append(run.ledger, entries)
    rebuild(run, manifest, scenes, {region.scene_id for region in regions})
    contents = {origin.name: origin.content for origin in given.values()}
    record["files"] = {**record["files"], **contents}
    record["conflict_pixels"] = left
    record["settled"] = [*record.get("settled", []), _told(summary, len(new))]
    write_json(round_.ingest_json, record)
    return summary


def _told(summary: IngestSummary, entries: int) -> dict[str, object]:
    values = asdict(replace(summary, conflict_file=None))
    kept = ("files", "settled_pixels", "conflict_pixels")
    return {"time": now_text(), "entries": entries, **{name: values[name] for name in kept}}


def _entry(region: QueryRegion, classes: Classes, before: Sequence[LedgerEntry]) -> LedgerEntry:
    """More pixels of a region that was paid for; it keeps its number."""
    own = next(entry for entry in before if entry.region_id == region.region_id)
    return replace(
        own,
        time=now_text(),
        pixels=0,
        labelled_pixels=int((classes != IGNORE_INDEX).sum()),
        unknown_pixels=0,
        area_m2=None if own.area_m2 is None else 0.0,
        seconds=0.0,
        status="settled",
        classes_rle=encode_classes(classes),
        source="",
        seen=(),
        answers=None,
        teacher_wrong=None,
        refined_wrong=None,
    )
