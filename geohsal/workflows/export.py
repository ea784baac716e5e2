"""`geohsal export`: the round's map of whole scenes as seamless polygons."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geohsal.config import load_config
from geohsal.errors import DataError, PartialError, RequestError, RunError
from geohsal.geo.scene import Scene
from geohsal.io.atomic import discard, replacing
from geohsal.io.geopackage import common_crs, crs_text, file_groups
from geohsal.io.manifest import load_manifest
from geohsal.io.parts import part_path, read_part
from geohsal.io.plan import Plan, freeze_plan
from geohsal.io.polygon_file import (
    SUFFIXES,
    PackedBatch,
    PolygonLayer,
    count_polygons,
    read_record,
    write_polygons,
)
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.engine import (
    Engine,
    Shard,
    missing,
    parse_shard,
    read_one,
    read_parts,
    run_plan,
)
from geohsal.workflows.export_scene import What
from geohsal.workflows.export_work import (
    CutScene,
    ExportWork,
    cut_scene,
    input_hashes,
    inputs_of,
    map_layer,
    polygons_path,
)
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.stages import StageFolder

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What was written; `skipped` scenes have no rasters in the round.

    `area_m2` is by class name, of scenes that have a ground; empty where none has.

    Of a share nothing is written: `done` scenes were cut now, `left` ones nobody cut yet (None
    where there was no share), and `failures` says by scene why it could not be read: the merge
    tries again.
    """

    out: Path
    written: bool
    round: int
    polygons: int
    scenes: tuple[str, ...]
    skipped: tuple[str, ...]
    area_m2: dict[str, float]
    done: int | None = None
    left: int | None = None
    failures: dict[str, str] = field(default_factory=dict)


def export_folder(out: Path) -> StageFolder:
    """Where the parts of an export gather, beside its file; gone when it is written."""
    return StageFolder(path=out.with_name(f".{out.name}.parts"))


def export(
    run_dir: Path,
    out: Path,
    *,
    what: What = "refined",
    sieve_px: int | None = None,
    simplify_px: float | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Write the newest queried round's map of whole scenes as polygons without gaps or overlaps.

    A killed call goes on where it was, scene by scene.

    Args:
        run_dir: the run.
        out: ends in .gpkg (styled), .parquet or .fgb.
        what: `refined` cuts polygons by class and source (undecided patches are a source);
            `final` by class only, with all answers so far burnt in.
        sieve_px: patches below this many pixels join their largest neighbour; None: as set.
        simplify_px: tolerance of gap-free simplification in pixels; None: as set; 0 keeps edges.
        overwrite: replace an `out` of another request.
        shard: I/N, I from 0 to N-1: cut this share of the scenes and write no file yet.
        workers: processes that cut scenes.
        scheduler: address of a Dask scheduler whose workers cut them instead.
        progress: told of every scene.

    Raises:
        RequestError: the suffix is unknown, `out` exists and differs, or scenes without a common
            ground need layers and the format has none; the shard is no share.
        RunError: no round has been queried.
        DataError: the file cannot be written.
        LostError: a worker process died.
        PartialError: some scenes could not be read; the others are written. A share raises none.
    """
    share = None if shard is None else parse_shard(shard)
    job, summary = open_export(
        run_dir,
        out,
        what=what,
        sieve_px=sieve_px,
        simplify_px=simplify_px,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    return job.run(summary, share, overwrite=overwrite)


def open_export(
    run_dir: Path,
    out: Path,
    *,
    what: What,
    sieve_px: int | None,
    simplify_px: float | None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> tuple["ExportJob", ExportSummary]:
    """The export, and its summary before anything is done; nothing is changed."""
    if out.suffix not in SUFFIXES:
        raise RequestError(f"{out}: must end in {', '.join(SUFFIXES)}")
    run = open_run(run_dir)
    round_ = _newest(run)
    scenes = load_scenes(run)
    present = {
        name: scene for name, scene in scenes.items() if round_.raster(name, "class").exists()
    }
    if not present:
        raise RunError(f"{run.path}: round {round_.index} has no rasters; run geohsal query again")
    config = load_config(run.config).output
    job = ExportJob(
        out=out,
        work=_work(
            run,
            round_,
            present,
            what=what,
            sieve_px=config.sieve_px if sieve_px is None else sieve_px,
            simplify_px=config.simplify_px if simplify_px is None else simplify_px,
            folder=(export_folder(out).path / "polygons").absolute(),
        ),
        engine=Engine(workers=workers, scheduler=scheduler, progress=progress or Silent()),
    )
    summary = ExportSummary(
        out=out,
        written=False,
        round=round_.index,
        polygons=0,
        scenes=tuple(present),
        skipped=tuple(name for name in scenes if name not in present),
        area_m2={},
    )
    return job, summary


def _newest(run: Run) -> Round:
    for index in range(run.current.index, -1, -1):
        if run.round(index).query_json.exists():
            return run.round(index)
    raise RunError(f"{run.path}: no round has been queried; run geohsal query first")


def _work(
    run: Run,
    round_: Round,
    scenes: Mapping[str, Scene],
    *,
    what: What,
    sieve_px: int,
    simplify_px: float,
    folder: Path,
) -> ExportWork:
    grounds = {
        scene.scene_id: common_crs(group)
        for _, group in file_groups(scenes.values())
        for scene in group
    }
    return ExportWork(
        run=Run(path=run.path.absolute()),  # workers may stand in another folder
        round=Run(path=run.path.absolute()).round(round_.index),
        classes=tuple(load_manifest(run.manifest).classes),
        what=what,
        sieve_px=sieve_px,
        simplify_px=simplify_px,
        scenes=scenes,
        crs=grounds,
        layer=map_layer(what, None),
        folder=folder,
    )


@dataclass(slots=True, kw_only=True)
class ExportJob:
    """One export under way: what was asked, and who does it."""

    out: Path
    work: ExportWork
    engine: Engine
    hashes: dict[str, list[str]] = field(default_factory=dict)

    def inputs(self, names: Sequence[str] | None = None) -> dict[str, list[str]]:
        """Hashes of the files of scenes, all by default; read once."""
        work = self.work
        wanted = list(work.scenes) if names is None else names
        for name in wanted:
            if name not in self.hashes:
                self.hashes[name] = input_hashes(work.run, work.round, name, what=work.what)
        return {name: self.hashes[name] for name in wanted}

    def record(self) -> dict[str, Any]:
        """What the file says of how it was made."""
        digest = hashlib.sha256()
        for name in (name for hashes in self.inputs().values() for name in hashes):
            digest.update(bytes.fromhex(name))
        return {
            "format_version": FORMAT_VERSION,
            "kind": "geohsal export",
            "round": self.work.round.index,
            "what": self.work.what,
            "sieve_px": self.work.sieve_px,
            "simplify_px": self.work.simplify_px,
            "inputs": digest.hexdigest(),
        }

    def run(self, summary: ExportSummary, shard: Shard | None, *, overwrite: bool) -> ExportSummary:
        """Do what was asked, unless the file is there.

        Raises:
            RequestError: the file is of another request, or cannot hold these scenes.
            DataError: the folder cannot be written.
            PartialError: some scenes could not be read.
        """
        if self.is_there(overwrite=overwrite):
            discard(export_folder(self.out).path)  # of a call that was killed once it had written
            return replace(summary, polygons=count_polygons(self.out))
        return self.write(summary) if shard is None else self.share(summary, shard)

    def is_there(self, *, overwrite: bool) -> bool:
        """Whether the file is there and of this request.

        Raises:
            RequestError: it is of another one, or cannot hold these scenes.
            DataError: the folder cannot be written.
        """
        out = self.out
        if out.exists() and not overwrite:
            if read_record(out) == self.record():
                return True
            raise RequestError(f"{out}: exists and is of another request; give --overwrite")
        if out.suffix != ".gpkg" and len(file_groups(self.work.scenes.values())) > 1:
            raise RequestError(f"{out}: scenes without a common ground need layers; write a .gpkg")
        folder = out.parent
        if folder.exists() and not os.access(folder, os.W_OK):
            raise DataError(f"{out}: cannot be written (no permission to write in folder {folder})")
        return False

    def share(self, summary: ExportSummary, shard: Shard) -> ExportSummary:
        """Cut one share of the scenes; those that cannot be read are named.

        Raises:
            RunError: another call finished the file meanwhile, and took the folder away.
        """
        folder = export_folder(self.out)
        plan = self._planned(folder, shard)
        done = run_plan(plan, self.work, folder.parts, shard=shard, engine=self.engine)
        if not folder.plan.is_file():
            discard(folder.path)  # what this share cut after that
            raise RunError(
                f"{self.out}: share {shard} came too late, its parts were removed; geohsal export "
                "without --shard does what is left"
            )
        own = shard.of(plan.chunk_ids)
        found = [read_one(plan, folder.parts, chunk_id) for chunk_id in own]
        scenes = {part.manifest["scene"]: cut_scene(part) for part in found}
        failures = {name: scene.error for name, scene in scenes.items() if scene.error is not None}
        for text in failures.values():
            logger.warning("%s", text)
        left = len(missing(plan, folder.parts))
        return replace(summary, done=done, left=left, failures=failures)

    def _planned(self, folder: StageFolder, shard: Shard) -> Plan:
        """The plan of all shares: each hashes its own scenes only, unless these have changed."""
        own = shard.of(list(self.work.scenes))
        return folder.shared_plan(
            lambda plan: self.work.fits(plan, self.inputs(own)),
            make=lambda: self.work.plan(self.inputs()),
        )

    def write(self, summary: ExportSummary) -> ExportSummary:
        """Cut what is missing, and write all that can be read.

        Raises:
            PartialError: some scenes could not be read.
        """
        folder = export_folder(self.out)
        plan = self.work.plan(self.inputs())
        freeze_plan(folder.plan, plan)
        scenes = self._all(plan, folder)
        failures = {name: scene.error for name, scene in scenes.items() if scene.error is not None}
        if len(failures) < len(scenes):
            with replacing(self.out) as part:
                write_polygons(
                    part, self._layers(scenes), classes=self.work.classes, record=self.record()
                )
        discard(folder.path)
        if failures:
            rest = " and are not in it" if len(failures) < len(scenes) else "; nothing is written"
            raise PartialError(
                f"{self.out}: {len(failures)} of {len(scenes)} scenes failed{rest}",
                failures=failures,
            )
        areas = np.sum([scene.areas for scene in scenes.values()], axis=0)
        return replace(
            summary,
            written=True,
            polygons=sum(scene.polygons for scene in scenes.values()),
            area_m2={info.name: round(float(areas[info.class_id]), 2) for info in self.work.classes}
            if areas.any()
            else {},
        )

    def _all(self, plan: Plan, folder: StageFolder) -> dict[str, CutScene]:
        """Every scene; cut again are those that failed, lack polygons or had other files."""
        for chunk_id, hashes in zip(plan.chunk_ids, self.inputs().values(), strict=True):
            if not self.is_cut(folder, chunk_id, hashes):
                part_path(folder.parts, chunk_id).unlink(missing_ok=True)
        run_plan(plan, self.work, folder.parts, shard=None, engine=self.engine)
        parts = read_parts(plan, folder.parts)
        return {part.manifest["scene"]: cut_scene(part) for part in parts}

    def is_cut(self, folder: StageFolder, chunk_id: str, hashes: Sequence[str]) -> bool:
        """Whether a scene is cut, of the files that are there now."""
        part = read_part(part_path(folder.parts, chunk_id), ["inputs"])
        there = polygons_path(self.work.folder, chunk_id).is_file()
        return there and part is not None and inputs_of(part) == hashes

    def _layers(self, scenes: Mapping[str, CutScene]) -> list[PolygonLayer]:
        groups = file_groups(self.work.scenes.values())
        return [
            PolygonLayer(
                layer=map_layer(self.work.what, local),
                crs=crs_text(common_crs(group), group),
                batches=self._batches([scenes[scene.scene_id] for scene in group]),
            )
            for local, group in groups
        ]

    def _batches(self, scenes: Sequence[CutScene]) -> Iterator[PackedBatch]:
        for scene in scenes:
            if scene.error is None:
                yield from scene.batches(self.work.folder)
