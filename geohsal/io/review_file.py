"""Writes the review file of a round: what a person opens in QGIS, prefilled and styled."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.affinity import translate
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from geohsal.config import OutputConfig
from geohsal.errors import RunError
from geohsal.geo.patches import (
    find_patches,
    merge_windows,
    pad_window,
    shape_hash,
    slices,
)
from geohsal.geo.polygons import mask_to_multipolygon
from geohsal.geo.scene import ClassInfo, MapReader, QueryRegion, Scene, SceneMaps
from geohsal.geo.states import IGNORE_INDEX, UNDECIDED, PixelState
from geohsal.io import review_schema as schema
from geohsal.io.atomic import replacing
from geohsal.io.geopackage import RowList, common_crs, crs_text, place, write_geopackage
from geohsal.io.gpkg_extras import PROVENANCE
from geohsal.io.gpkg_read import content_hash, is_edited
from geohsal.io.round_record import Answer, AnswerTable, fingerprint

FORMAT_VERSION = 1
_SOURCE_OF_STATE = {
    PixelState.LABELLED: "label",
    PixelState.CONFIRMED: "confirmed",
    PixelState.CORRECTED: "corrected",
}


def write_review(
    path: Path,
    *,
    regions: Sequence[QueryRegion],
    scenes: Mapping[str, Scene],
    maps: MapReader,
    classes: Sequence[ClassInfo],
    config: OutputConfig,
    provenance: Mapping[str, Any],
) -> AnswerTable:
    """Write one review file about these regions; `file_groups` says which go together.

    Args:
        path: must end in .gpkg; an unedited file there is replaced.
        regions: of one round, of the scenes of one group.
        scenes: by scene id; those of `regions` at least.
        maps: read in windows on and around the regions.
        classes: in the order of their ids.
        config: sieve and context.
        provenance: plain values that travel with the file (`request` of the query, versions,
            model hash).

    Returns:
        The prefilled answers, for the round's own record.

    Raises:
        RunError: the file that stands there has been edited or is open.
        DataError: it cannot be written, or a local scene shares the file with others.
    """
    if path.exists() and is_edited(path):
        raise RunError(f"{path}: has been edited or is open in QGIS; move it away first")
    ranked = sorted(regions, key=lambda region: (region.rank, region.region_id))
    used = [scenes[name] for name in sorted({region.scene_id for region in ranked})]
    crs = common_crs(used)
    answers, prefilled = _answer_rows(ranked, scenes, maps, classes, config, crs)
    undecided, pseudo_labels = _around(ranked, used, maps, classes, config, crs)
    tables = [_region_rows(ranked, scenes, crs), answers, undecided, pseudo_labels]
    record = {
        **provenance,
        "format_version": FORMAT_VERSION,
        "kind": "geohsal review",
        "round": ranked[0].round if ranked else None,
        "scenes": [scene.scene_id for scene in used],
        "classes": [info.name for info in classes],
        "fingerprint": fingerprint(ranked, prefilled),
    }
    with replacing(path) as part:
        write_geopackage(
            part,
            [rows.table(crs_text(crs, used)) for rows in tables],
            classes=classes,
            provenance=record,
        )
        _seal(part, path)
    return prefilled


def _seal(part: Path, path: Path) -> None:
    """Store what the file says now, so that edits can be told later."""
    content = content_hash(part, where=path)
    with closing(sqlite3.connect(part)) as connection, connection:
        connection.execute(
            "UPDATE gpkg_metadata SET metadata = json_set(metadata, '$.content', ?)"
            " WHERE md_standard_uri = ?",
            (content, PROVENANCE),
        )


def _region_rows(
    regions: Sequence[QueryRegion], scenes: Mapping[str, Scene], crs: CRS | None
) -> RowList:
    rows = RowList(layer=schema.REGIONS_LAYER)
    for region in regions:
        outline = mask_to_multipolygon(region.mask, transform=Affine.identity())
        rows.add(
            place(outline, scenes[region.scene_id], crs, window=region.cell),
            {
                "region_id": region.region_id,
                "scene_id": region.scene_id,
                "round": region.round,
                "rank": region.rank,
                "score": round(region.score, 4),
                "reason": region.reason,
                "error_probability": round(region.error_probability, 4),
                "undecided_share": round(region.undecided_share, 4),
                "teacher_class": region.teacher_class,
                "plar_class": region.plar_class,
                "margin": round(region.margin, 4),
                "area_m2": None if region.area_m2 is None else round(region.area_m2, 2),
                "pixels": region.pixels,
                "cost_min": round(region.cost_min, 3),
                "audit": region.audit,
                "status": "todo",
                "notes": "",  # a multi-line box shows NULL as the word
            },
        )
    return rows


def _source_codes(state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes = np.zeros(state.shape, dtype=np.uint8)  # 0: teacher
    for value, name in _SOURCE_OF_STATE.items():
        codes[state == value] = schema.SOURCES.index(name)
    return codes


def _answer_rows(
    regions: Sequence[QueryRegion],
    scenes: Mapping[str, Scene],
    maps: MapReader,
    classes: Sequence[ClassInfo],
    config: OutputConfig,
    crs: CRS | None,
) -> tuple[RowList, AnswerTable]:
    rows, record = RowList(layer=schema.ANSWERS_LAYER), []
    for region in regions:
        scene, here = scenes[region.scene_id], maps(region.scene_id, region.cell)
        found = find_patches(here.refined, mask=region.mask, sieve_px=config.sieve_px)
        sources = found.majority(_source_codes(here.state))
        for number, polygon in enumerate(found.polygons):
            code = int(found.codes[number])
            answer = Answer(
                answer_id=f"{region.region_id}_a{number + 1:03d}",
                region_id=region.region_id,
                scene_id=region.scene_id,
                suggested_class=code if code < len(classes) else None,
                source=schema.SOURCES[int(sources[number])],
                shape=shape_hash(translate(polygon, region.cell.col_off, region.cell.row_off)),
            )
            record.append(answer)
            rows.add(
                place(polygon, scene, crs, window=region.cell),
                {
                    "answer_id": answer.answer_id,
                    "region_id": answer.region_id,
                    "scene_id": answer.scene_id,
                    "suggested_class": answer.suggested_class,
                    "source": answer.source,
                    "notes": "",
                },
            )
    return rows, tuple(record)


def _around(
    regions: Sequence[QueryRegion],
    scenes: Sequence[Scene],
    maps: MapReader,
    classes: Sequence[ClassInfo],
    config: OutputConfig,
    crs: CRS | None,
) -> tuple[RowList, RowList]:
    """Undecided patches and pseudo-labels in and around the regions."""
    undecided = RowList(layer=schema.UNDECIDED_LAYER)
    pseudo_labels = RowList(layer=schema.PSEUDO_LABELS_LAYER)
    for scene in scenes:
        near = [
            pad_window(region.cell, config.context_px, scene)
            for region in regions
            if region.scene_id == scene.scene_id
        ]
        for window in merge_windows(near):
            inside = np.zeros((int(window.height), int(window.width)), dtype=np.bool_)
            for box in near:
                if _within(box, window):
                    moved = Window(
                        box.col_off - window.col_off,
                        box.row_off - window.row_off,
                        box.width,
                        box.height,
                    )
                    inside[slices(moved)] = True
            place_in = _Place(scene=scene, crs=crs, window=window, sieve_px=config.sieve_px)
            here = maps(scene.scene_id, window)
            _add_undecided(undecided, place_in, here.state, inside)
            _add_pseudo_labels(pseudo_labels, place_in, here, inside, classes)
    return undecided, pseudo_labels


def _within(box: Window, window: Window) -> bool:
    return bool(
        window.row_off <= box.row_off < window.row_off + window.height
        and window.col_off <= box.col_off < window.col_off + window.width
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    scene: Scene
    crs: CRS | None
    window: Window
    sieve_px: int

    def put(self, polygon: Polygon) -> BaseGeometry:
        return place(polygon, self.scene, self.crs, window=self.window)


def _add_undecided(
    rows: RowList, where: _Place, state: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> None:
    mask = inside & np.isin(state, UNDECIDED)
    found = find_patches(state, mask=mask, sieve_px=where.sieve_px)
    areas = found.areas_m2(where.scene, where.window)
    for number, polygon in enumerate(found.polygons):
        rows.add(
            where.put(polygon),
            {
                "scene_id": where.scene.scene_id,
                "state": PixelState(int(found.codes[number])).name,
                "pixels": int(found.pixels[number]),
                "area_m2": areas[number],
            },
        )


def _add_pseudo_labels(
    rows: RowList,
    where: _Place,
    maps: SceneMaps,
    inside: NDArray[np.bool_],
    classes: Sequence[ClassInfo],
) -> None:
    state, refined, teacher = maps.state, maps.refined, maps.teacher
    mask = inside & (state != PixelState.NODATA) & ~np.isin(state, UNDECIDED)
    mask &= refined != IGNORE_INDEX
    corrected = state == PixelState.CORRECTED
    old = np.where(corrected, teacher, IGNORE_INDEX).astype(np.int32)
    codes = refined.astype(np.int32) + 256 * (old + 256 * _source_codes(state).astype(np.int32))
    found = find_patches(codes, mask=mask, sieve_px=where.sieve_px)
    areas = found.areas_m2(where.scene, where.window)
    confidence = found.mean(maps.confidence)
    for number, polygon in enumerate(found.polygons):
        rest, class_id = divmod(int(found.codes[number]), 256)
        source, old_class = divmod(rest, 256)
        rows.add(
            where.put(polygon),
            {
                "scene_id": where.scene.scene_id,
                "class_id": class_id,
                "class_name": classes[class_id].name,
                "source": schema.SOURCES[source],
                "old_class": None if old_class == IGNORE_INDEX else old_class,
                "confidence": round(float(confidence[number]), 4),
                "area_m2": areas[number],
            },
        )
