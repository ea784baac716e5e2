"""`geohsal tile`: check manifest and rasters, cut scenes into tiles, burn labels, open a run."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geohsal import __version__
from geohsal.config import Config
from geohsal.errors import GeohsalError, RunError
from geohsal.io.atomic import discard
from geohsal.io.gdal import is_remote
from geohsal.io.ledger import active_entries, read_ledger
from geohsal.io.manifest import Manifest, dump_manifest, load_manifest
from geohsal.io.plan import Plan, find_plan
from geohsal.io.run import Run
from geohsal.io.run_tables import TileRecord, read_config
from geohsal.workflows.engine import Engine, Shard, missing, parse_shard, refuse_scheduler
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.scan import SceneTask
from geohsal.workflows.stages import StageFolder, tile_folder
from geohsal.workflows.stamps import Stamps, stamps
from geohsal.workflows.tile_changes import (
    Before,
    read_before,
    refuse_other_data,
    refuse_other_request,
    refuse_started,
    same_text,
    scenes_to_scan,
)
from geohsal.workflows.tile_folder import alone, tidy_folder, working
from geohsal.workflows.tile_merge import RunScan, changes, merged
from geohsal.workflows.tile_overview import overview
from geohsal.workflows.tile_work import STAGE, ScannedScene, plan_scenes, request_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSummary:
    """What a tile run did: `changed` is False where there was nothing to do.

    `notes` are lines for people on what was added or read again; `record` is what tile.json says
    (band statistics, label shares, warnings) and `tiles` the number of tiles in the index.
    `remote_pixel_bytes` were read of each scene that came over a network, counted as pixels:
    compressed files send fewer.
    """

    run_dir: Path
    changed: bool
    dry_run: bool
    tiles: int
    notes: tuple[str, ...]
    record: TileRecord
    remote_pixel_bytes: dict[str, int] = field(default_factory=dict)

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
            "remote_pixel_bytes": self.remote_pixel_bytes,
            **self.record.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TileShare:
    """What one share of a tile run did: scenes scanned now, and those that nobody scanned yet."""

    run_dir: Path
    shard: str
    done: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What is to be tiled; `reasons` are the scenes to scan, each with its reason.

    `stamps` are of the run that all this was read from.
    """

    manifest: Manifest
    run: Run
    stamps: Stamps
    before: Before | None
    settings: Config
    reasons: dict[str, str]
    tasks: tuple[SceneTask, ...]
    text: str

    @property
    def idle(self) -> bool:
        """Whether the run is what the manifest says."""
        return bool(self.before) and not self.reasons and same_text(self.run.manifest, self.text)


def tile(
    manifest_path: Path,
    out: Path,
    *,
    config: Config | None = None,
    patches: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> TileSummary:
    """Tile the scenes of a manifest into a run folder, or take what was added since.

    Done again with nothing new it does nothing. A scene that cannot be used stops the run before
    anything of it is in its place; what was scanned is kept aside, and so are the scenes of a
    killed call: the same call goes on from there.

    Args:
        manifest_path: the manifest.
        out: the run folder.
        config: settings; None takes those of the run in `out`, else the defaults. A run keeps its
            config.yaml: only its first tiling (and training) writes it.
        patches: also write every tile as a GeoTIFF.
        overwrite: rebuild a run on which nothing was built yet.
        dry_run: check and count, but write nothing.
        workers: processes that read scenes.
        scheduler: address of a Dask scheduler whose workers read them instead.
        progress: told about each scene.

    Raises:
        ManifestError: the manifest does not say what it must.
        RunError: another request on top of an existing run; or another command has changed the run
            since this one began.
        RequestError: a dry run with a scheduler.
        BusyError: another command is changing the run.
        LostError: a worker process died.
        DataError: scenes or labels that cannot be used, one line each; or images, bands or
            classes that changed under a run.
    """
    refuse_scheduler(scheduler, dry_run=dry_run)
    request = _request(manifest_path, out, config=config, patches=patches, overwrite=overwrite)
    run, before = request.run, request.before
    if request.idle and before:
        if not dry_run:
            tidy_folder(run)
        return _summary(run, before.record, changed=False, dry_run=dry_run)
    engine = Engine(workers=workers, scheduler=scheduler, progress=progress or Silent())
    mine = alone(run, request.stamps, dry_run=dry_run)
    with mine, working(run, dry_run=dry_run) as folder:
        work = RunScan(run=run, tasks=request.tasks, folder=folder, dry_run=dry_run)
        found = work.all(engine) if request.tasks else {}
        scans = {scene_id: scene.scan for scene_id, scene in found.items()}
        records, tiles = merged(request.manifest, scans, before)
        record = overview(request.manifest, records, config=request.settings)
        if not dry_run:
            config = None if before else request.settings
            record = work.commit(
                found, record=record, tiles=tiles, text=request.text, config=config
            )
    return replace(
        _summary(run, record, changed=True, dry_run=dry_run),
        notes=changes(request.reasons, records, before),
        remote_pixel_bytes=_remote(request.manifest, found),
    )


def tile_share(
    manifest_path: Path,
    out: Path,
    *,
    shard: str,
    config: Config | None = None,
    patches: bool = False,
    overwrite: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> TileShare:
    """Scan one share of the scenes; `tile` merges when all shares are done.

    Args:
        manifest_path: the manifest.
        out: the run folder.
        shard: I/N, I from 0 to N-1.
        config: as in `tile`, like all that follow.
        patches: also write every tile as a GeoTIFF.
        overwrite: rebuild a run on which nothing was built yet.
        workers: processes that read scenes.
        scheduler: address of a Dask scheduler whose workers read them instead.
        progress: told about each scene.

    Raises:
        RequestError: the shard is no share.
        RunError: another command made the run meanwhile.
        GeohsalError: as `tile`; the other scenes of the share are done.
    """
    own = parse_shard(shard)
    request = _request(manifest_path, out, config=config, patches=patches, overwrite=overwrite)
    if not request.tasks:
        return TileShare(run_dir=out, shard=shard, done=0, left=0)
    engine = Engine(workers=workers, scheduler=scheduler, progress=progress or Silent())
    with working(request.run, dry_run=False, keep=True) as folder:
        plan = _frozen(folder, request)
        work = RunScan(run=request.run, tasks=request.tasks, folder=folder)
        done = _share(work, plan, own, engine)
        left = len(missing(plan, folder.parts))
    return TileShare(run_dir=out, shard=shard, done=done, left=left)


def _share(work: RunScan, plan: Plan, shard: Shard, engine: Engine) -> int:
    """Do a share, unless a merge takes its folder away meanwhile: the plan goes with it."""
    folder = work.folder
    try:
        done = work.share(plan, shard, engine)
    except GeohsalError:
        if folder.plan.is_file():
            raise
        done = None
    if done is not None and folder.plan.is_file():
        return done
    discard(folder.path)  # what this share wrote after the merge
    what = "the run is complete" if work.run.tiles.is_file() else "its parts were removed"
    raise RunError(
        f"{work.run.path}: share {shard} came too late: {what}; geohsal tile without --shard does "
        "what is left"
    )


def _frozen(folder: StageFolder, request: _Request) -> Plan:
    """The plan of all shares: that of the first one, so that the others need not look at all."""
    wanted = STAGE, request_of(request.tasks), tuple(request.reasons)
    return folder.shared_plan(
        lambda plan: (plan.stage, plan.request, plan.scenes) == wanted,
        make=lambda: plan_scenes(request.tasks)[0],
    )


def _request(
    manifest_path: Path, out: Path, *, config: Config | None, patches: bool, overwrite: bool
) -> _Request:
    manifest = load_manifest(manifest_path)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; give a folder with -o")
    run = Run(path=out)
    seen = stamps(run)
    before = None if overwrite else read_before(run)
    if overwrite:
        refuse_started(run)
    settings = _settings(config, before)
    if before:
        refuse_other_data(manifest, before, tile=settings.tile)
        refuse_other_request(manifest, before, tile=settings.tile)
    planned = find_plan(tile_folder(run).plan) if before and not before.whole else None
    reasons = scenes_to_scan(
        manifest,
        before,
        region_px=settings.query.region_px,
        patches=patches,
        planned=None if planned is None else planned.scenes,
    )
    return _Request(
        manifest=manifest,
        run=run,
        stamps=seen,
        before=before,
        settings=settings,
        reasons=reasons,
        tasks=_tasks(manifest, settings, run, patches=patches, scenes=tuple(reasons)),
        text=_manifest_text(manifest),
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


def _summary(run: Run, record: TileRecord, *, changed: bool, dry_run: bool) -> TileSummary:
    return TileSummary(
        run_dir=run.path,
        changed=changed,
        dry_run=dry_run,
        tiles=sum(scene.tiles for scene in record.scenes.values()),
        notes=(),
        record=record,
    )


def _remote(manifest: Manifest, scenes: dict[str, ScannedScene]) -> dict[str, int]:
    return {
        scene_id: scene.scan.pixel_bytes
        for scene_id, scene in scenes.items()
        if is_remote(manifest.scene(scene_id).image)
    }


def _tasks(
    manifest: Manifest, config: Config, run: Run, *, patches: bool, scenes: tuple[str, ...]
) -> tuple[SceneTask, ...]:
    entries = active_entries(read_ledger(run.ledger))
    return tuple(
        SceneTask(
            source=manifest.scene(scene_id),
            bands=manifest.bands,
            classes=manifest.classes,
            blocks=manifest.blocks,
            tile=config.tile,
            region_px=config.query.region_px,
            entries=tuple(entry for entry in entries if entry.scene_id == scene_id),
            patches=patches,
        )
        for scene_id in scenes
    )
