"""`geohsal export`: the round's map of whole scenes as seamless polygons."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS

from geohsal.config import load_config
from geohsal.errors import DataError, PartialError, RequestError, RunError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.atomic import replacing, scratch
from geohsal.io.fingerprint import file_sha256
from geohsal.io.geopackage import common_crs, crs_text, file_groups
from geohsal.io.manifest import load_manifest
from geohsal.io.polygon_file import (
    SUFFIXES,
    PolygonBatch,
    PolygonLayer,
    count_polygons,
    read_record,
    write_polygons,
)
from geohsal.io.review_schema import Field, Layer
from geohsal.io.run import Round, Run, open_run
from geohsal.io.run_tables import load_scenes
from geohsal.workflows.export_scene import KINDS, SOURCES, What, batches, stage

FORMAT_VERSION = 1
_TITLES = {"refined": "Refined pseudo-labels", "final": "Land-cover map"}
_LAYERS = {"refined": "pseudo_labels", "final": "final_map"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What was written; `skipped` scenes have no rasters in the round."""

    out: Path
    written: bool
    round: int
    polygons: int
    scenes: tuple[str, ...]
    skipped: tuple[str, ...]
    area_m2: dict[str, float]


def export(
    run_dir: Path,
    out: Path,
    *,
    what: What = "refined",
    sieve_px: int | None = None,
    simplify_px: float | None = None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the newest queried round's map of whole scenes as polygons without gaps or overlaps.

    Args:
        run_dir: the run.
        out: ends in .gpkg (styled), .parquet or .fgb.
        what: `refined` cuts polygons by class and source (undecided patches are a source);
            `final` by class only, with all answers so far burnt in.
        sieve_px: patches below this many pixels join their largest neighbour; None: as set.
        simplify_px: tolerance of gap-free simplification in pixels; None: as set; 0 keeps edges.
        overwrite: replace an `out` of another request.

    Raises:
        RequestError: the suffix is unknown, `out` exists and differs, or scenes without a common
            ground need layers and the format has none.
        RunError: no round has been queried.
        DataError: the file cannot be written.
        PartialError: some scenes could not be read; the others are written.
    """
    if out.suffix not in SUFFIXES:
        raise RequestError(f"{out}: must end in {', '.join(SUFFIXES)}")
    run = open_run(run_dir)
    config = load_config(run.config).output
    classes = load_manifest(run.manifest).classes
    round_ = _newest(run)
    scenes = load_scenes(run)
    present = [name for name in scenes if round_.raster(name, "class").exists()]
    if not present:
        raise RunError(f"{run.path}: round {round_.index} has no rasters; run geohsal query again")
    request: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "kind": "geohsal export",
        "round": round_.index,
        "what": what,
        "sieve_px": config.sieve_px if sieve_px is None else sieve_px,
        "simplify_px": config.simplify_px if simplify_px is None else simplify_px,
        "inputs": _digest(run, round_, present, what),
    }
    summary = ExportSummary(
        out=out,
        written=False,
        round=round_.index,
        polygons=0,
        scenes=tuple(present),
        skipped=tuple(name for name in scenes if name not in present),
        area_m2={},
    )
    if out.exists() and not overwrite:
        if read_record(out) == request:
            return replace(summary, polygons=count_polygons(out))
        raise RequestError(f"{out}: exists and is of another request; give --overwrite")
    if out.suffix != ".gpkg" and len(file_groups(scenes[name] for name in present)) > 1:
        raise RequestError(f"{out}: scenes without a common ground need layers; write a .gpkg")
    folder = out.parent
    if folder.exists() and not os.access(folder, os.W_OK):
        raise DataError(f"{out}: cannot be written (no permission to write in folder {folder})")
    work = _Export(run=run, round=round_, classes=classes, request=request, folder=out.parent)
    return work.write(summary, [scenes[name] for name in present])


def _newest(run: Run) -> Round:
    for index in range(run.current.index, -1, -1):
        if run.round(index).query_json.exists():
            return run.round(index)
    raise RunError(f"{run.path}: no round has been queried; run geohsal query first")


def _digest(run: Run, round_: Round, scenes: Sequence[str], what: What) -> str:
    paths = [round_.raster(name, kind) for name in scenes for kind in KINDS]
    if what == "final":
        paths += [run.labels(name) for name in scenes]
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


@dataclass(slots=True, kw_only=True)
class _Export:
    """One export under way: what was asked, and what has become of it.

    `folder` is where a scene's rasters are kept while it is written.
    """

    run: Run
    round: Round
    classes: Sequence[ClassInfo]
    request: dict[str, Any]
    folder: Path
    failures: dict[str, str] = field(default_factory=dict)
    polygons: int = 0
    areas: dict[str, float] = field(default_factory=dict)

    def write(self, summary: ExportSummary, scenes: Sequence[Scene]) -> ExportSummary:
        """Write all that can be read.

        Raises:
            PartialError: some scenes could not be read.
        """
        layers = []
        for local, group in file_groups(scenes):
            crs = common_crs(group)
            layers.append(
                PolygonLayer(
                    layer=_layer(self.request["what"], local),
                    crs=crs_text(crs, group),
                    batches=self._batches(group, crs),
                )
            )
        with replacing(summary.out) as part:
            write_polygons(part, layers, classes=self.classes, record=self.request)
            if len(self.failures) == len(scenes):
                raise self._partial(summary.out, scenes, "; nothing is written")
        if self.failures:
            raise self._partial(summary.out, scenes, " and are not in it")
        areas = {info.name: round(self.areas.get(info.name, 0.0), 2) for info in self.classes}
        return replace(summary, written=True, polygons=self.polygons, area_m2=areas)

    def _partial(self, out: Path, scenes: Sequence[Scene], rest: str) -> PartialError:
        return PartialError(
            f"{out}: {len(self.failures)} of {len(scenes)} scenes failed{rest}",
            failures=self.failures,
        )

    def _batches(self, scenes: Sequence[Scene], crs: CRS | None) -> Iterator[PolygonBatch]:
        for scene in scenes:
            with scratch(self.folder, "export") as folder:
                try:
                    staged = stage(
                        self.run,
                        self.round,
                        scene,
                        num_classes=len(self.classes),
                        what=self.request["what"],
                        sieve_px=self.request["sieve_px"],
                        folder=folder,
                    )
                except DataError as error:
                    self.failures[scene.scene_id] = str(error)
                    continue
                simplify_px = self.request["simplify_px"]
                for batch in batches(staged, self.classes, crs, simplify_px=simplify_px):
                    self._count(batch)
                    yield batch

    def _count(self, batch: PolygonBatch) -> None:
        self.polygons += len(batch.polygons)
        areas = np.asarray(batch.columns["area_m2"], dtype=np.float64)
        class_ids = batch.columns["class_id"]
        totals = np.bincount(class_ids, np.nan_to_num(areas), len(self.classes))
        for info in self.classes:
            self.areas[info.name] = self.areas.get(info.name, 0.0) + float(totals[info.class_id])


def _layer(what: What, local: str | None) -> Layer:
    title = _TITLES[what]
    return Layer(
        name=f"{_LAYERS[what]}_{local}" if local else _LAYERS[what],
        title=f"{title} ({local})" if local else title,
        description="Whole scenes as polygons without gaps or overlaps",
        fields=(
            Field(name="class_id", kind="int", alias="Class", choices="class"),
            Field(name="class_name", kind="text", alias="Class name"),
            Field(name="source", kind="text", alias="Source", note=", ".join(SOURCES)),
            Field(name="confidence", kind="real", alias="Confidence", note="mean"),
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(name="area_m2", kind="real", alias="Area (m²)"),
        ),
    )
