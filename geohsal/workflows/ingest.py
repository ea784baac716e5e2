"""`geohsal ingest`: reviewed regions become labels, once, in an order that a kill cannot break.

The ledger is written first, labels follow from it, and ingest.json comes last: whatever stops the
work, the same command finishes it.
"""

import datetime
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from geohsal.errors import RequestError, ReviewError, RunError
from geohsal.geo.scene import Scene
from geohsal.io.answer_file import write_answers_file
from geohsal.io.atomic import read_record, write_json
from geohsal.io.label_store import (
    LabelArrays,
    read_label_raster,
    write_label_raster,
)
from geohsal.io.ledger import (
    LedgerEntry,
    active_entries,
    append,
    encode_classes,
    next_region_number,
    read_ledger,
    replay,
)
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.review_read import ReviewedRegion, ReviewedRound, read_review
from geohsal.io.review_rows import read_origin
from geohsal.io.round_record import answers_path, read_answers, read_regions
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.review_worth import ReviewWorth, label_changes, review_worth

FORMAT_VERSION = 1
LONGEST_PAUSE_S = 600
"""A longer gap between two regions was a pause, not work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What an ingest took in, took back, or (`action` nothing) found already done.

    Counts of answers are of prefilled polygons in done regions; `changed_labels` lists where
    answers overrule earlier labels; `worth` says how often the maps had been wrong there.
    """

    action: Literal["ingested", "would ingest", "undone", "would undo", "nothing"]
    round: int
    done: int = 0
    unsure: int = 0
    skipped: int = 0
    todo: int = 0
    accepted: int = 0
    corrected: int = 0
    added: int = 0
    deleted: int = 0
    labelled_pixels: int = 0
    unknown_pixels: int = 0
    class_pixels: Mapping[str, int] | None = None
    changed_labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    worth: ReviewWorth | None = None


def ingest(
    run_dir: Path, reviewed: Sequence[Path] = (), *, undo: bool = False, dry_run: bool = False
) -> IngestSummary:
    """Take the reviewed files of the queried round in, or take the last ingest back.

    Args:
        run_dir: the run.
        reviewed: its reviewed files: several for local scenes, or where people shared the work.
        undo: take the last ingest back instead; only until the next round has trained.
        dry_run: check and report, change nothing.

    Raises:
        RequestError: files and `undo` together, or neither.
        RunError: the round is not queried; other files of it are in; nothing to take back.
        ReviewError: the files do not fit, have problems, or no region in them is done.
    """
    if undo == bool(reviewed):
        raise RequestError("give the reviewed files, or --undo and no file")
    run = open_run(run_dir)
    manifest = load_manifest(run.manifest)
    return _undo(run, manifest, dry_run) if undo else _ingest(run, manifest, reviewed, dry_run)


def _ingest(run: Run, manifest: Manifest, paths: Sequence[Path], dry_run: bool) -> IngestSummary:
    origins = {path: read_origin(path) for path in paths}
    earlier = _already_in(run, origins)
    if earlier is not None:
        return earlier
    round_ = run.current
    _check_step(run, round_)
    scenes = load_scenes(run)
    review = read_review(
        paths,
        regions=read_regions(round_.regions),
        answers=read_answers(answers_path(round_)),
        scenes=scenes,
        classes=manifest.classes,
        round=round_.index,
        request=read_record(round_.query_json).get("request"),
    )
    if not review.counts.done:
        counts = review.counts
        raise ReviewError(
            f"{', '.join(str(path) for path in paths)}: no region is done ({counts.todo} todo, "
            f"{counts.unsure} unsure, {counts.skipped} skipped); set status to done and save"
        )
    ledger = read_ledger(run.ledger)
    standing = active_entries(ledger)
    before = [entry for entry in standing if entry.round != round_.index]
    entries = _entries(review, ledger)
    changes = label_changes(run, review.regions, before, manifest.class_names)
    summary = _summary(review, manifest, changes, review_worth(round_, review.regions))
    if dry_run:
        return replace(summary, action="would ingest")
    entries = _record(run, round_, ledger, entries)
    _rebuild(run, manifest, scenes, {entry.scene_id for entry in entries})
    _close(run, round_, review, summary)
    return summary


def _check_step(run: Run, round_: Round) -> None:
    if round_.step != "queried":
        todo = "train" if round_.step == "tiled" else "query"
        raise RunError(
            f"{run.path}: round {round_.index} is {round_.step}, nothing of it is under review; "
            f"run: geohsal {todo} {run.path}"
        )
    last = round_.index - 1
    if last >= 0 and not _standing(run, last):
        raise _interrupted_undo(run, last)


def _standing(run: Run, index: int) -> list[LedgerEntry]:
    return [entry for entry in active_entries(read_ledger(run.ledger)) if entry.round == index]


def _already_in(run: Run, origins: Mapping[Path, tuple[int | None, str]]) -> IngestSummary | None:
    """A word on files whose round is ingested; None where there is work to do."""
    contents = {content for _, content in origins.values()}
    rounds = {index for index, _ in origins.values()}
    current = run.current.index
    for index in range(current):
        known = read_record(run.round(index).ingest_json, "files")["files"]
        names = ", ".join(sorted(known))
        if contents != set(known.values()):
            if index in rounds:
                last = index == current - 1 and run.current.step == "tiled"
                back = (
                    f"take that back first (geohsal ingest {run.path} --undo), or " if last else ""
                )
                raise RunError(
                    f"{run.path}: round {index} is already ingested from {names}; {back}give round "
                    f"{current}'s files"
                )
            continue
        if not _standing(run, index):
            raise _interrupted_undo(run, index)
        note = f"round {index} holds the answers of {names} already"
        return IngestSummary(action="nothing", round=index, notes=(note,))
    return None


def _interrupted_undo(run: Run, index: int) -> RunError:
    return RunError(
        f"{run.path}: an undo of round {index} was interrupted; finish it first: "
        f"geohsal ingest {run.path} --undo"
    )


def _entries(review: ReviewedRound, ledger: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """One entry per region that somebody has looked at."""
    looked_at = [item for item in review.regions if item.status != "todo"]
    seconds = _seconds(looked_at)
    numbers: dict[str, int] = {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    entries = []
    for item in looked_at:
        scene_id = item.region.scene_id
        number = numbers.get(scene_id, next_region_number(ledger, scene_id))
        numbers[scene_id] = number + 1
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
            )
        )
    return entries


def _seconds(regions: Sequence[ReviewedRegion]) -> dict[str, float]:
    """Time per region: by the clock since the reviewer's last region, else by the cost model."""
    seconds = {item.region.region_id: 60 * item.region.cost_min for item in regions}
    stamped = [
        (item.reviewer or "", item.reviewed_ms, item.region.region_id)
        for item in regions
        if item.reviewed_ms is not None
    ]
    ordered = sorted(stamped)
    for (reviewer, earlier, _), (same, stamp, region_id) in itertools.pairwise(ordered):
        gap = (stamp - earlier) / 1000
        if reviewer == same and 0 < gap <= LONGEST_PAUSE_S:
            seconds[region_id] = gap
    return seconds


def _record(
    run: Run, round_: Round, ledger: Sequence[LedgerEntry], entries: list[LedgerEntry]
) -> list[LedgerEntry]:
    """Put the entries into the ledger unless an interrupted run already has."""
    standing = [entry for entry in active_entries(ledger) if entry.round == round_.index]
    if [_said(entry) for entry in standing] == [_said(entry) for entry in entries]:
        return standing
    taken_back = [_undo_entry(round_)] if standing else []
    append(run.ledger, [*taken_back, *entries])
    return [*standing, *entries]


def _said(entry: LedgerEntry) -> tuple[str, str, str]:
    return entry.region_id, entry.status, entry.classes_rle


def _undo_entry(round_: Round) -> LedgerEntry:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return LedgerEntry(event="undo", round=round_.index, time=now)


def _rebuild(run: Run, manifest: Manifest, scenes: Mapping[str, Scene], touched: set[str]) -> None:
    """Bring labels/<scene>.tif and labels.gpkg to what the ledger says."""
    standing = active_entries(read_ledger(run.ledger))
    for scene_id in sorted(touched):
        labels = _replayed(run, scene_id, standing)
        write_label_raster(
            run.labels(scene_id),
            labels.classes,
            labels.regions,
            labels.rounds,
            scene=scenes[scene_id],
        )
    write_answers_file(run.answers, standing, scenes=scenes, classes=manifest.classes)


def _replayed(run: Run, scene_id: str, entries: Sequence[LedgerEntry]) -> LabelArrays:
    base = read_label_raster(run.base_labels(scene_id))
    return replay(base, [entry for entry in entries if entry.scene_id == scene_id])


def _close(run: Run, round_: Round, review: ReviewedRound, summary: IngestSummary) -> None:
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "files": dict(review.contents),
        **asdict(summary),
    }
    write_json(round_.ingest_json, record)


def _summary(
    review: ReviewedRound, manifest: Manifest, changes: tuple[str, ...], worth: ReviewWorth | None
) -> IngestSummary:
    counts = review.counts
    return IngestSummary(
        action="ingested",
        round=review.round,
        done=counts.done,
        unsure=counts.unsure,
        skipped=counts.skipped,
        todo=counts.todo,
        accepted=counts.accepted,
        corrected=counts.corrected,
        added=counts.added,
        deleted=counts.deleted,
        labelled_pixels=sum(counts.class_pixels.values()),
        unknown_pixels=counts.unknown_pixels,
        class_pixels={
            info.name: counts.class_pixels.get(info.class_id, 0) for info in manifest.classes
        },
        changed_labels=changes,
        notes=review.notes,
        worth=worth,
    )


def _undo(run: Run, manifest: Manifest, dry_run: bool) -> IngestSummary:
    """Take the last ingest back; ingest.json goes last, so that a killed undo can be repeated."""
    current = run.current
    half_done = bool(_standing(run, current.index))
    target = current if half_done or current.index == 0 else run.round(current.index - 1)
    if not half_done and current.index == 0:
        raise RunError(f"{run.path}: no round has been ingested, there is nothing to take back")
    if not half_done and current.step != "tiled":
        raise RunError(
            f"{run.path}: round {current.index} has trained on the answers of round "
            f"{target.index}; they can no longer be taken back"
        )
    ledger = read_ledger(run.ledger)
    own = [e for e in ledger if e.event == "ingest" and e.round == target.index]
    standing = _standing(run, target.index)
    summary = IngestSummary(
        action="would undo" if dry_run else "undone",
        round=target.index,
        done=sum(entry.status == "done" for entry in standing),
        labelled_pixels=sum(entry.labelled_pixels for entry in standing),
    )
    if dry_run:
        return summary
    if standing:
        append(run.ledger, [_undo_entry(target)])
    _rebuild(run, manifest, load_scenes(run), {entry.scene_id for entry in own})
    target.ingest_json.unlink(missing_ok=True)
    return summary
