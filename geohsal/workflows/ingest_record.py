"""What an ingest leaves behind: ledger first, labels from it, the round's record last.

Whatever stops the work, the same command finishes it.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from geohsal.geo.scene import Scene
from geohsal.io.answer_file import write_answers_file
from geohsal.io.atomic import write_json
from geohsal.io.conflict_file import is_settled, write_conflicts
from geohsal.io.label_store import LabelArrays, read_label_raster, write_label_raster
from geohsal.io.ledger import (
    LedgerEntry,
    active_entries,
    append,
    encode_classes,
    next_region_number,
    read_ledger,
    replay,
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


def standing(run: Run, index: int) -> list[LedgerEntry]:
    """The entries of a round that stand."""
    return [entry for entry in active_entries(read_ledger(run.ledger)) if entry.round == index]


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


def take_back(run: Run, round_: Round) -> None:
    """From now on nothing stands of a round."""
    append(run.ledger, [_undo_entry(round_)])


def _undo_entry(round_: Round) -> LedgerEntry:
    return LedgerEntry(event="undo", round=round_.index, time=now_text())


def rebuild(run: Run, manifest: Manifest, scenes: Mapping[str, Scene], touched: set[str]) -> None:
    """Bring labels/<scene>.tif and labels.gpkg to what the ledger says."""
    entries = active_entries(read_ledger(run.ledger))
    for scene_id in sorted(touched):
        labels = replayed(run, scene_id, entries)
        write_label_raster(
            run.labels(scene_id),
            labels.classes,
            labels.regions,
            labels.rounds,
            scene=scenes[scene_id],
        )
    write_answers_file(run.answers, entries, scenes=scenes, classes=manifest.classes)


def replayed(run: Run, scene_id: str, entries: Sequence[LedgerEntry]) -> LabelArrays:
    """Labels of a scene by the manifest and these entries."""
    base = read_label_raster(run.base_labels(scene_id))
    return replay(base, [entry for entry in entries if entry.scene_id == scene_id])


def record_conflicts(
    round_: Round,
    regions: Sequence[ReviewedRegion],
    manifest: Manifest,
    scenes: Mapping[str, Scene],
) -> None:
    """Write where reviewers differ; a file that somebody has begun to settle stays."""
    if not regions or (round_.conflicts.exists() and is_settled(round_.conflicts)):
        return
    write_conflicts(
        round_.conflicts,
        regions,
        scenes=scenes,
        classes=manifest.classes,
        provenance={"run": manifest.name, "round": round_.index},
    )


def close_round(
    round_: Round,
    summary: IngestSummary,
    *,
    contents: Mapping[str, str],
    conflicts: Sequence[ReviewedRegion],
) -> None:
    """Write ingest.json, last: from then on the round is ingested."""
    plain = replace(summary, conflict_file=None)
    record: dict[str, Any] = {
        **asdict(plain),
        "format_version": FORMAT_VERSION,
        "time": now_text(),
        "files": dict(contents),
        "conflict_file": summary.conflict_file.name if summary.conflict_file else None,
        "conflicts": {
            item.region.region_id: encode_classes(item.conflict.astype(np.uint8))
            for item in conflicts
        },
    }
    write_json(round_.ingest_json, record)
