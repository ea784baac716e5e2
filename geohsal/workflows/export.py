"""`geohsal export`: the round's map of whole scenes as seamless polygons."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import geopandas
import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window
from shapely.geometry import Polygon

from geohsal.config import load_config
from geohsal.errors import DataError, PartialError, RasterError, RequestError, ReviewError, RunError
from geohsal.geo.patches import Patches, find_patches
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.states import IGNORE_INDEX, UNDECIDED, PixelState
from geohsal.io.atomic import replacing
from geohsal.io.fingerprint import file_sha256
from geohsal.io.gdal import quiet
from geohsal.io.geopackage import (
    RowList,
    common_crs,
    crs_text,
    file_groups,
    place,
    write_geopackage,
)
from geohsal.io.gpkg_read import read_provenance, settled_copy
from geohsal.io.label_store import read_label_raster
from geohsal.io.manifest import load_manifest
from geohsal.io.review_schema import Field, Layer
from geohsal.io.run import RasterKind, Round, Run, open_run
from geohsal.io.run_tables import load_scenes

FORMAT_VERSION = 1
What = Literal["refined", "final"]
SOURCES = ("teacher", "confirmed", "corrected", "label", "undecided")
SUFFIXES = (".gpkg", ".parquet", ".fgb")
_KINDS: tuple[RasterKind, ...] = ("class", "state", "confidence")
_SOURCE_OF_STATE = {
    PixelState.CONFIRMED: 1,
    PixelState.CORRECTED: 2,
    PixelState.LABELLED: 3,
    **dict.fromkeys(UNDECIDED, 4),
}
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """One scene's codes to polygonise (class + 256 x source), where they count, confidence."""

    codes: NDArray[np.int32]
    mask: NDArray[np.bool_]
    sources: NDArray[np.uint8]
    confidence: NDArray[np.float32]


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
        RequestError: the suffix is unknown, `out` exists and differs, local scenes in one layer.
        RunError: no round has been queried.
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
        if _made_by(out) == request:
            return summary
        raise RequestError(f"{out}: exists and is of another request; give --overwrite")
    return _export(run, round_, scenes, classes, request, summary)


def _newest(run: Run) -> Round:
    for index in range(run.current.index, -1, -1):
        if run.round(index).query_json.exists():
            return run.round(index)
    raise RunError(f"{run.path}: no round has been queried; run geohsal query first")


def _digest(run: Run, round_: Round, scenes: Sequence[str], what: What) -> str:
    paths = [round_.raster(name, kind) for name in scenes for kind in _KINDS]
    if what == "final":
        paths += [run.labels(name) for name in scenes]
    digest = hashlib.sha256()
    for path in paths:
        if path.exists():
            digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def _made_by(out: Path) -> dict[str, Any] | None:
    if out.suffix != ".gpkg":
        return None
    try:
        with settled_copy(out) as copy:
            return read_provenance(copy)
    except ReviewError:
        return None


def _export(
    run: Run,
    round_: Round,
    scenes: Mapping[str, Scene],
    classes: Sequence[ClassInfo],
    request: Mapping[str, Any],
    summary: ExportSummary,
) -> ExportSummary:
    failures: dict[str, str] = {}
    groups = []
    for local, group in file_groups(scenes[name] for name in summary.scenes):
        name = _LAYERS[request["what"]] + (f"_{local}" if local else "")
        rows = RowList(layer=_layer(name, _TITLES[request["what"]]))
        crs = common_crs(group)
        for scene in group:
            try:
                maps = _read(run, round_, scene, request["what"])
            except RasterError as error:
                failures[scene.scene_id] = str(error)
                continue
            _add_scene(rows, scene, maps, classes, crs, request)
        groups.append((rows, crs_text(crs, group)))
    if len(failures) < len(summary.scenes):
        _write(summary.out, groups, classes, request)
    if failures:
        raise PartialError(
            f"{summary.out}: {len(failures)} of {len(summary.scenes)} scenes failed and are not "
            "in it",
            failures=failures,
        )
    rows_all = [row for rows, _ in groups for row in rows.values]
    areas = {
        info.name: round(
            sum(row["area_m2"] or 0.0 for row in rows_all if row["class_id"] == info.class_id), 2
        )
        for info in classes
    }
    return ExportSummary(
        out=summary.out,
        written=True,
        round=summary.round,
        polygons=len(rows_all),
        scenes=summary.scenes,
        skipped=summary.skipped,
        area_m2=areas,
    )


def _layer(name: str, title: str) -> Layer:
    return Layer(
        name=name,
        title=title if name in _LAYERS.values() else f"{title} ({name})",
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


def _read(run: Run, round_: Round, scene: Scene, what: What) -> _Maps:
    """Arrays of one scene.

    Raises:
        RasterError: a raster of the round is missing or damaged.
    """
    refined, state, confidence = (
        _band(round_.raster(scene.scene_id, kind), scene) for kind in _KINDS
    )
    sources = np.zeros(scene.shape, dtype=np.uint8)
    for value, source in _SOURCE_OF_STATE.items():
        sources[state == value] = source
    classes = refined.astype(np.int32)
    mask = (state != PixelState.NODATA) & (classes != IGNORE_INDEX)
    if what == "final":
        answered = read_label_raster(run.labels(scene.scene_id)).classes
        known = mask & (answered != IGNORE_INDEX)
        classes[known] = answered[known]
        sources[known] = SOURCES.index("label")
    else:
        classes += 256 * sources.astype(np.int32)
    sure = np.nan_to_num(confidence.astype(np.float32))
    return _Maps(codes=classes, mask=mask, sources=sources, confidence=sure)


def _band(path: Path, scene: Scene) -> NDArray[Any]:
    try:
        with quiet(), rasterio.open(path) as source:
            if (source.height, source.width) != scene.shape:
                raise RasterError(f"{path}: is not on the scene's grid; query the round again")
            band: NDArray[Any] = source.read(1)
            return band
    except RasterioError as error:
        raise RasterError(f"{path}: cannot be read ({error}); query the round again") from None


def _add_scene(
    rows: RowList,
    scene: Scene,
    maps: _Maps,
    classes: Sequence[ClassInfo],
    crs: CRS | None,
    request: Mapping[str, Any],
) -> None:
    found = find_patches(maps.codes, mask=maps.mask, sieve_px=request["sieve_px"])
    polygons = _simplified(found, request["simplify_px"])
    areas = found.areas_m2(scene, scene.extent)
    sources = found.majority(maps.sources)
    confidence = found.mean(maps.confidence)
    whole = Window(0, 0, scene.width, scene.height)
    for number, polygon in enumerate(polygons):
        class_id = int(found.codes[number]) % 256
        rows.add(
            place(polygon, scene, crs, window=whole),
            {
                "class_id": class_id,
                "class_name": classes[class_id].name,
                "source": SOURCES[int(sources[number])],
                "confidence": round(float(confidence[number]), 4),
                "scene_id": scene.scene_id,
                "area_m2": areas[number],
            },
        )


def _simplified(found: Patches, tolerance: float) -> Sequence[Polygon]:
    """Smoother outlines whose neighbours still fit; a vertex per pixel edge makes that possible."""
    if not tolerance or not found.polygons:
        return found.polygons
    dense = shapely.segmentize(np.array(found.polygons, dtype=object), 1.0)
    smooth = shapely.coverage_simplify(dense, tolerance)
    return smooth.tolist() if shapely.coverage_is_valid(smooth) else found.polygons


def _write(
    out: Path,
    groups: Sequence[tuple[RowList, str]],
    classes: Sequence[ClassInfo],
    request: Mapping[str, Any],
) -> None:
    if out.suffix != ".gpkg" and len(groups) > 1:
        raise RequestError(f"{out}: scenes without a common ground need layers; write a .gpkg")
    with replacing(out) as part:
        if out.suffix == ".gpkg":
            tables = [rows.table(crs) for rows, crs in groups]
            write_geopackage(part, tables, classes=classes, provenance=request)
            return
        rows, crs = groups[0]
        frame = geopandas.GeoDataFrame(list(rows.values), geometry=rows.geometries, crs=crs)
        if out.suffix == ".parquet":
            frame.to_parquet(part, index=False)
            return
        try:
            frame.to_file(part, driver="FlatGeobuf", engine="pyogrio")
        except (DataSourceError, DataLayerError) as error:
            raise DataError(f"{out}: cannot be written ({error})") from None
