"""What an ingest leaves behind: ledger first, labels from it, the round's record last.

Whatever stops the work, the same command finishes it.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import ReviewError
from geohsal.geo.patches import slices
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.answer_file import write_answers_file
from geohsal.io.atomic import write_json
from geohsal.io.conflict_file import (
    conflict_set,
    is_settled,
    read_conflicts_origin,
    write_conflicts,
)
from geohsal.io.gpkg_read import is_open
from geohsal.io.label_store import LabelReader, write_label_raster
from geohsal.io.ledger import (
    LedgerEntry,
    active_entries,
    append,
    decode_classes,
    encode_classes,
    next_region_number,
    read_ledger,
    replay,
    replayed_planes,
)
from geohsal.io.manifest import Manifest
from geohsal.io.review_read import ReviewedRegion, ReviewedRound
from geohsal.io.run import Round, Run
from geohsal.workflows.ingest_summary import IngestSummary
from geohsal.workflows.review_time import spent_seconds, stamps_of
from geohsal.workflows.review_worth import RegionWorth

FORMAT_VERSION = 1


def now_text() -> str:
    """The time in UTC."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return now.replace("+00:00", "Z")


def entries_of(
    review: ReviewedRound, ledger: Sequence[LedgerEntry], worths: Mapping[str, RegionWorth]
) -> list[LedgerEntry]:
    """One entry per region that somebody has looked at."""
    looked_at = [item for item in review.regions if item.status != "todo"]
    seconds = spent_seconds(looked_at)
    numbers: dict[str, int] = {}
    now = now_text()
    entries = []
    for item in looked_at:
        scene_id = item.region.scene_id
        number = numbers.get(scene_id, next_region_number(ledger, scene_id))
        numbers[scene_id] = number + 1
        worth = worths.get(item.region.region_id)
        cell = item.region.cell
        entries.append(
            LedgerEntry(
                event="ingest",
                round=review.round,
                time=now,
                scene_id=scene_id,
                region_id=item.region.region_id,
                region_number=number,
                cell=(int(cell.row_off), int(cell.col_off), int(cell.height), int(cell.width)),
                pixels=item.region.pixels,
                labelled_pixels=item.labelled_pixels,
                unknown_pixels=item.unknown_pixels,
                area_m2=item.region.area_m2,
                seconds=seconds[item.region.region_id],
                status=item.status,
                audit=item.region.audit,
                classes_rle=encode_classes(item.classes),
                reviewer=item.reviewer,
                reviewed_ms=item.reviewed_ms,
                source=item.source,
                answers=worth.answers if worth else None,
                seen=stamps_of(item),
                teacher_wrong=worth.teacher_wrong if worth else None,
                refined_wrong=worth.refined_wrong if worth else None,
            )
        )
    return entries


def record_entries(
    run: Run, round_: Round, ledger: Sequence[LedgerEntry], entries: list[LedgerEntry]
) -> set[str]:
    """Put the entries into the ledger unless an interrupted run already has.

    Returns:
        The scenes whose labels change.
    """
    before = [entry for entry in active_entries(ledger) if entry.round == round_.index]
    if [_said(entry) for entry in before] != [_said(entry) for entry in entries]:
        append(run.ledger, [*([_undo_entry(round_)] if before else []), *entries])
    return {entry.scene_id for entry in [*before, *entries]}


def _said(entry: LedgerEntry) -> tuple[str, str, str]:
    return entry.region_id, entry.status, entry.classes_rle


def burnt_pixels(entries: Sequence[LedgerEntry]) -> int:
    """Pixels of the regions of these entries that got a class, each counted once."""
    known: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for entry in entries:
        _, _, height, width = entry.cell
        found = decode_classes(entry.classes_rle, height=height, width=width) != IGNORE_INDEX
        name = (entry.scene_id, entry.region_id)
        known[name] = known[name] | found if name in known else found
    return sum(int(found.sum()) for found in known.values())


def take_back(run: Run, round_: Round) -> None:
    """From now on nothing stands of a round."""
    append(run.ledger, [_undo_entry(round_)])


def _undo_entry(round_: Round) -> LedgerEntry:
    return LedgerEntry(event="undo", round=round_.index, time=now_text())


def rebuild(run: Run, manifest: Manifest, scenes: Mapping[str, Scene], touched: set[str]) -> None:
    """Bring labels/<scene>.tif and labels.gpkg to what the ledger says."""
    entries = active_entries(read_ledger(run.ledger))
    for scene_id in sorted(touched):
        scene, own = scenes[scene_id], [entry for entry in entries if entry.scene_id == scene_id]
        with LabelReader(run.base_labels(scene_id)) as base:
            planes = replayed_planes(base.rows, own, height=scene.height)
            write_label_raster(run.labels(scene_id), *planes, scene=scene)
    write_answers_file(run.answers, entries, scenes=scenes, classes=manifest.classes)


def replayed_classes(
    run: Run, region: QueryRegion, scene: Scene, entries: Sequence[LedgerEntry]
) -> NDArray[np.uint8]:
    """Classes (row, col) of a region's cell by the manifest and these entries."""
    rows, columns = slices(region.cell)
    own = [entry for entry in entries if entry.scene_id == region.scene_id]
    with LabelReader(run.base_labels(region.scene_id)) as base:
        burnt = replay(base.rows(rows), own, top=rows.start, height=scene.height)
    return burnt.classes[:, columns]


def outdated_conflicts(round_: Round, regions: Sequence[ReviewedRegion]) -> Path | None:
    """The name under which a file of other differences than these shall be kept; None: none stands.

    Raises:
        ReviewError: there is one, and it is open in another program.
    """
    path = round_.conflicts
    if not path.exists() or read_conflicts_origin(path).conflicts == conflict_set(regions):
        return None
    if is_open(path):
        raise ReviewError(
            f"{path}: is of other differences than these reviews have, and open in another "
            "program; close it there (QGIS) and try again"
        )
    old, number = path.with_suffix(f".old{path.suffix}"), 1
    while old.exists():
        old, number = path.with_suffix(f".old.{number}{path.suffix}"), number + 1
    return old


def record_conflicts(
    round_: Round,
    regions: Sequence[ReviewedRegion],
    manifest: Manifest,
    scenes: Mapping[str, Scene],
    *,
    settled: bool,
) -> None:
    """Write where reviewers differ; a file that somebody has begun to settle stays.

    Args:
        round_: the round.
        regions: as reviewed, before anything was settled.
        manifest: of the run.
        scenes: by id.
        settled: nothing is left to settle; then only a file of other differences is moved away.
    """
    old = outdated_conflicts(round_, regions)
    if old is not None:
        round_.conflicts.rename(old)
    if settled or (round_.conflicts.exists() and is_settled(round_.conflicts)):
        return
    write_conflicts(
        round_.conflicts,
        regions,
        scenes=scenes,
        classes=manifest.classes,
        provenance={
            "run": manifest.name,
            "round": round_.index,
            "conflicts": conflict_set(regions),
        },
    )


def close_round(
    round_: Round,
    summary: IngestSummary,
    *,
    contents: Mapping[str, str],
    conflicts: Sequence[ReviewedRegion],
    listed: str | None,
) -> None:
    """Write ingest.json, last: from then on the round is ingested.

    Args:
        round_: the round.
        summary: what was taken in.
        contents: of the files, by their names.
        conflicts: regions with pixels that are left to settle.
        listed: the `conflict_set` of the round's conflicts file.
    """
    plain = replace(summary, conflict_file=None)
    record: dict[str, Any] = {
        **asdict(plain),
        "format_version": FORMAT_VERSION,
        "time": now_text(),
        "files": dict(contents),
        "conflict_file": summary.conflict_file.name if summary.conflict_file else None,
        "conflict_set": listed,
        "conflicts": {
            item.region.region_id: encode_classes(item.conflict.astype(np.uint8))
            for item in conflicts
        },
    }
    write_json(round_.ingest_json, record)
