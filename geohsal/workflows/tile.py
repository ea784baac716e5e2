"""`geohsal tile`: check manifest and rasters, cut scenes into tiles, burn labels, open a run."""

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from geohsal import __version__
from geohsal.config import Config
from geohsal.errors import DataError, GeohsalError, RunError
from geohsal.geo.scene import Tile
from geohsal.io.atomic import PART, write_text
from geohsal.io.fingerprint import file_sha256
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.manifest import Manifest, dump_manifest, load_manifest
from geohsal.io.run import Run
from geohsal.io.run_tables import (
    SceneRecord,
    TileRecord,
    heldout_labels,
    read_config,
    write_config,
    write_summary,
)
from geohsal.io.tile_index import write_tiles
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scan import SceneScan, SceneTask, scan_scene
from geohsal.workflows.tile_changes import (
    Before,
    read_before,
    refuse_other_data,
    refuse_other_request,
    refuse_started,
    same_text,
    scenes_to_scan,
)
from geohsal.workflows.tile_overview import overview

_STAGE = ".tile."


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSummary:
    """What a tile run did: `changed` is False where there was nothing to do.

    `notes` are lines for people on what was added or read again; `record` is what tile.json says
    (band statistics, label shares, warnings) and `tiles` the number of tiles in the index.
    """

    run_dir: Path
    changed: bool
    dry_run: bool
    tiles: int
    notes: tuple[str, ...]
    record: TileRecord

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before training."""
        return self.record.warnings

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "run_dir": str(self.run_dir),
            "changed": self.changed,
            "dry_run": self.dry_run,
            "tiles": self.tiles,
            "notes": list(self.notes),
            **self.record.to_dict(),
        }


def tile(
    manifest_path: Path,
    out: Path,
    *,
    config: Config | None = None,
    patches: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> TileSummary:
    """Tile the scenes of a manifest into a run folder, or take what was added since.

    Done again with nothing new it does nothing. Every scene is checked before anything is written;
    a killed call is completed by the same call.

    Args:
        manifest_path: the manifest.
        out: the run folder.
        config: settings; None takes those of the run in `out`, else the defaults. A run keeps its
            config.yaml: only its first tiling (and training) writes it.
        patches: also write every tile as a GeoTIFF.
        overwrite: rebuild a run on which nothing was built yet.
        dry_run: check and count, but write nothing.
        workers: processes that read scenes.
        progress: told about each scene.

    Raises:
        ManifestError: the manifest does not say what it must.
        RunError: another request on top of an existing run.
        DataError: scenes or labels that cannot be used, one line each; or images, bands or
            classes that changed under a run.
    """
    manifest = load_manifest(manifest_path)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; give a folder with -o")
    run = Run(path=out)
    before = None if overwrite else read_before(run)
    if overwrite:
        refuse_started(run)
    settings = _settings(config, before)
    if before:
        refuse_other_data(manifest, before, tile=settings.tile)
        refuse_other_request(manifest, before, tile=settings.tile)
    reasons = scenes_to_scan(manifest, before, region_px=settings.query.region_px, patches=patches)
    text = _manifest_text(manifest)
    if before and not reasons and same_text(run.manifest, text):
        return _summary(run, before.record, changed=False, dry_run=dry_run)
    with _staging(out, dry_run=dry_run) as stage:
        tasks = _tasks(manifest, settings, run, stage=stage, patches=patches, scenes=reasons)
        scans = _scan_all(tasks, workers=workers, progress=progress or Silent())
        records, tiles = _merged(manifest, scans, before)
        record = overview(manifest, records, config=settings)
        if stage is not None:
            record = _commit(
                run,
                stage,
                record=record,
                tiles=tiles,
                text=text,
                config=None if before else settings,
                scans=scans,
            )
    return _summary(
        run, record, changed=True, dry_run=dry_run, notes=_notes(reasons, records, before)
    )


def _settings(config: Config | None, before: Before | None) -> Config:
    """The settings to work with: an existing run keeps the cell side that cuts its labels."""
    if before is None:
        return config or Config()
    settings = config or read_config(before.run)
    query = replace(settings.query, region_px=before.record.region_px)
    if config:
        return replace(settings, query=query)
    sizes = replace(
        settings.tile, core_px=before.record.core_px, overlap_px=before.record.overlap_px
    )
    return replace(settings, query=query, tile=sizes)


def _manifest_text(manifest: Manifest) -> str:
    return (
        f"# geohsal {__version__}, format_version 1, from {manifest.path.name}\n"
        + dump_manifest(manifest)
    )


def _summary(
    run: Run,
    record: TileRecord,
    *,
    changed: bool,
    dry_run: bool,
    notes: tuple[str, ...] = (),
) -> TileSummary:
    return TileSummary(
        run_dir=run.path,
        changed=changed,
        dry_run=dry_run,
        tiles=sum(scene.tiles for scene in record.scenes.values()),
        notes=notes,
        record=record,
    )


@contextmanager
def _staging(out: Path, *, dry_run: bool) -> Iterator[Path | None]:
    """A folder inside `out` that takes unfinished files; what killed runs left goes first."""
    if dry_run:
        yield None
        return
    fresh = not out.exists()
    stage = out / f"{_STAGE}{uuid.uuid4().hex[:8]}{PART}"
    try:
        stage.mkdir(parents=True)
        for left in out.glob(f"{_STAGE}*{PART}"):
            if left != stage:
                shutil.rmtree(left, ignore_errors=True)
        yield stage
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if fresh and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _tasks(
    manifest: Manifest,
    config: Config,
    run: Run,
    *,
    stage: Path | None,
    patches: bool,
    scenes: Mapping[str, str],
) -> list[SceneTask]:
    entries = active_entries(read_ledger(run.ledger))
    return [
        SceneTask(
            source=manifest.scene(scene_id),
            bands=manifest.bands,
            classes=manifest.classes,
            blocks=manifest.blocks,
            tile=config.tile,
            region_px=config.query.region_px,
            entries=tuple(entry for entry in entries if entry.scene_id == scene_id),
            stage=stage,
            patches=patches,
        )
        for scene_id in scenes
    ]


def _scan_all(
    tasks: Sequence[SceneTask], *, workers: int, progress: Progress
) -> dict[str, SceneScan]:
    """All scenes, or one error that names every scene that failed."""
    if workers <= 1 or len(tasks) <= 1:
        results = [_attempt(task, progress) for task in tasks]
    else:
        results = _scan_parallel(tasks, workers=workers, progress=progress)
    errors = [result for result in results if isinstance(result, GeohsalError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError("\n".join(str(error) for error in errors))
    return {scan.record.scene_id: scan for scan in results if isinstance(scan, SceneScan)}


def _scan_parallel(
    tasks: Sequence[SceneTask], *, workers: int, progress: Progress
) -> list[SceneScan | GeohsalError]:
    progress.start("scenes", len(tasks))
    results = []
    try:
        context = get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
            for result in pool.map(_attempt, tasks):
                results.append(result)
                progress.advance()
    except BrokenProcessPool:
        raise DataError(
            "a worker process died, most often for want of memory; run the same command again with "
            "fewer --workers"
        ) from None
    finally:
        progress.done()
    return results


def _attempt(task: SceneTask, progress: Progress | None = None) -> SceneScan | GeohsalError:
    try:
        return scan_scene(task, progress or Silent())
    except GeohsalError as error:
        return error


def _merged(
    manifest: Manifest, scans: Mapping[str, SceneScan], before: Before | None
) -> tuple[dict[str, SceneRecord], list[Tile]]:
    """Records and tiles in the manifest's order of scenes; what was scanned replaces the old."""
    records: dict[str, SceneRecord] = {}
    tiles: list[Tile] = []
    for source in manifest.scenes:
        scene_id = source.scene_id
        old = before.record.scenes.get(scene_id) if before else None
        if scene_id in scans:
            new = scans[scene_id].record
            records[scene_id] = replace(new, patches=new.patches or bool(old and old.patches))
            tiles.extend(scans[scene_id].tiles)
        elif before and old:
            records[scene_id] = old
            tiles.extend(before.tiles[scene_id])
    return records, tiles


def _commit(
    run: Run,
    stage: Path,
    *,
    record: TileRecord,
    tiles: Sequence[Tile],
    text: str,
    config: Config | None,
    scans: Mapping[str, SceneScan],
) -> TileRecord:
    """Rename everything into place, the tile index last; `config` None keeps config.yaml."""
    index = stage / run.tiles.name
    write_tiles(index, tiles)
    final = replace(record, tiles_sha256=file_sha256(index))
    for scene_id in scans:
        held = heldout_labels(run, scene_id)
        if not heldout_labels(Run(path=stage), scene_id).exists():
            held.unlink(missing_ok=True)
    for folder in ("labels/manifest", "labels/heldout", "labels", "patches"):
        for path in sorted((stage / folder).glob("*.tif")):
            target = run.path / folder / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    write_text(run.manifest, text)
    if config:
        write_config(run.config, config, version=__version__)
    write_summary(run.summary, final)
    index.replace(run.tiles)
    return final


def _notes(
    reasons: Mapping[str, str], records: Mapping[str, SceneRecord], before: Before | None
) -> tuple[str, ...]:
    """What changed in an existing run, a line each."""
    if before is None:
        return ()
    lines = []
    for scene_id, reason in reasons.items():
        old = before.record.scenes.get(scene_id)
        now = sum(records[scene_id].labelled.values())
        was = sum(old.labelled.values()) if old else 0
        lines.append(f"scene {scene_id!r}: {reason}; labelled train pixels {was} -> {now}")
    return tuple(lines) or ("manifest.yaml brought up to date; tiles and labels are the same",)
