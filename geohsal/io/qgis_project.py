"""The QGIS project of a review file: beside it as .qgz, and inside it; written without QGIS.

All paths are relative and stay under the round's folder, which can therefore be moved whole.
"""

import io
import json
import shutil
import sqlite3
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyproj import CRS
from shapely.geometry import box

from geohsal.geo.budget import counted
from geohsal.geo.scene import ClassInfo
from geohsal.io.atomic import replacing, unwritten
from geohsal.io.gpkg_extras import now_text
from geohsal.io.gpkg_read import read_provenance, read_rows
from geohsal.io.qgis_layers import (
    ProjectLayer,
    SceneRasters,
    on_earth,
    scene_rasters,
    srs_element,
    vector_layer,
)
from geohsal.io.qgis_xml import DOCTYPE, QGIS_VERSION, xml_text
from geohsal.io.review_schema import LAYERS, REGIONS
from geohsal.io.run import Round

EMBEDDED = "review"
"""Name of the project inside the review file."""

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_TABLE = "CREATE TABLE qgis_projects(name TEXT PRIMARY KEY, metadata BLOB, content BLOB)"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one region lies; `bounds` are x and y from and to, in the CRS of the file."""

    region_id: str
    scene_id: str
    rank: int
    bounds: tuple[float, float, float, float]

    def padded(self, share: float) -> tuple[float, float, float, float]:
        """The bounds, grown on every side by a share of the longer one."""
        left, bottom, right, top = self.bounds
        pad = share * max(right - left, top - bottom)
        return left - pad, bottom - pad, right + pad, top + pad


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What a project says."""

    crs: CRS | None
    layers: tuple[ProjectLayer, ...]
    scenes: tuple[SceneRasters, ...]
    places: tuple[_Place, ...]
    about: Mapping[str, Any]


def project_path(review: Path) -> Path:
    """The project beside a review file."""
    return review.with_suffix(".qgz")


def write_project(review: Path, *, round_: Round, classes: Sequence[ClassInfo]) -> Path:
    """Write the project of a review file, inside it and beside it.

    The same review file and rasters give the same bytes.

    Args:
        review: a review file in the round's folder, as `write_review` left it.
        round_: gives the rasters; those of scenes with regions are used, as far as they exist.
        classes: in the order of their ids.

    Returns:
        The path of the .qgz.

    Raises:
        DataError: a raster is damaged, or the project cannot be written.
        ReviewError: `review` is no review file.
    """
    plan = _plan(review, round_, classes)
    content = _zipped(DOCTYPE + xml_text(_document(plan)), name=f"{review.stem}.qgs")
    _embed(review, content)
    with replacing(project_path(review)) as part:
        part.write_bytes(content)
    return project_path(review)


def forget_project(connection: sqlite3.Connection) -> None:
    """Take the project out of a copy under another name: it would open the original."""
    connection.execute("DROP TABLE IF EXISTS qgis_projects")


def _plan(review: Path, round_: Round, classes: Sequence[ClassInfo]) -> _Plan:
    rows = read_rows(review, REGIONS, fields=("region_id", "scene_id", "rank"), where=review)
    places = tuple(
        _Place(region_id=region_id, scene_id=scene_id, rank=rank, bounds=geometry.bounds)
        for region_id, scene_id, rank, geometry in zip(
            *(rows.columns[name] for name in ("region_id", "scene_id", "rank")),
            rows.geometries,
            strict=True,
        )
        if geometry is not None
    )
    places = tuple(sorted(places, key=lambda place: (place.rank, place.region_id)))
    crs = on_earth(rows.crs.to_wkt() if rows.crs else None)
    scene_ids = dict.fromkeys(place.scene_id for place in places)
    rasters = (scene_rasters(scene_id, round_, classes) for scene_id in scene_ids)
    return _Plan(
        crs=crs,
        layers=tuple(vector_layer(layer, review.name, classes, crs) for layer in LAYERS),
        scenes=tuple(found for found in rasters if found is not None),
        places=places,
        about=read_provenance(review) or {},
    )


def _document(plan: _Plan) -> ET.Element:
    title = _title(plan.about)
    root = ET.Element("qgis", projectname=title, version=QGIS_VERSION)
    ET.SubElement(root, "homePath", path="")
    ET.SubElement(root, "title").text = title
    ET.SubElement(root, "projectCrs").append(srs_element(plan.crs))
    root.append(_tree(plan))
    root.append(_canvas(plan))
    definitions = ET.SubElement(root, "projectlayers")
    ordered = [*plan.layers, *(layer for scene in plan.scenes for layer in scene.layers)]
    definitions.extend(layer.definition for layer in ordered)
    order = ET.SubElement(root, "layerorder")
    for layer in ordered:
        ET.SubElement(order, "layer", id=layer.layer_id)
    root.append(_properties(plan))
    root.append(_bookmarks(plan))
    root.append(_metadata(plan, title))
    return root


def _title(about: Mapping[str, Any]) -> str:
    package = f", package {about['package']}" if "package" in about else ""
    return f"{about.get('run', 'geohsal')}, round {about.get('round', '?')}{package}: review"


def _tree(plan: _Plan) -> ET.Element:
    tree = ET.Element("layer-tree-group")
    for layer in plan.layers:
        tree.append(_entry(layer))
    for scene in plan.scenes:
        group = ET.SubElement(
            tree,
            "layer-tree-group",
            name=f"Scene {scene.scene_id}",
            checked="Qt::Checked",
            expanded=str(int(len(plan.scenes) == 1)),
        )
        group.extend(_entry(layer) for layer in scene.layers)
    ET.SubElement(tree, "custom-order", enabled="0")
    return tree


def _entry(layer: ProjectLayer) -> ET.Element:
    return ET.Element(
        "layer-tree-layer",
        id=layer.layer_id,
        name=layer.title,
        source=layer.source,
        providerKey=layer.provider,
        checked="Qt::Checked" if layer.shown else "Qt::Unchecked",
        expanded=str(int(layer.expanded)),
    )


def _canvas(plan: _Plan) -> ET.Element:
    """Opens on all regions of the scene with the first one."""
    canvas = ET.Element("mapcanvas", name="theMapCanvas", annotationsVisible="1")
    unit = "degrees" if plan.crs is not None and plan.crs.is_geographic else "meters"
    ET.SubElement(canvas, "units").text = "unknown" if plan.crs is None else unit
    first = plan.places[0].scene_id if plan.places else ""
    shown = [place.padded(0.75) for place in plan.places if place.scene_id == first]
    if shown:
        extent = ET.SubElement(canvas, "extent")
        ends = (min, min, max, max)
        for tag, end, values in zip(
            ("xmin", "ymin", "xmax", "ymax"), ends, zip(*shown, strict=True), strict=True
        ):
            ET.SubElement(extent, tag).text = repr(end(values))
    ET.SubElement(canvas, "rotation").text = "0"
    ET.SubElement(canvas, "destinationsrs").append(srs_element(plan.crs))
    return canvas


def _properties(plan: _Plan) -> ET.Element:
    properties = ET.Element("properties")
    paths = ET.SubElement(properties, "Paths")
    ET.SubElement(paths, "Absolute", type="bool").text = "false"
    reference = ET.SubElement(properties, "SpatialRefSys")
    on = str(int(plan.crs is not None))
    ET.SubElement(reference, "ProjectionsEnabled", type="int").text = on
    return properties


def _bookmarks(plan: _Plan) -> ET.Element:
    """One per region, in the order of ranks: QGIS sorts them by name."""
    bookmarks = ET.Element("Bookmarks")
    width = max((len(str(place.rank)) for place in plan.places), default=1)
    for place in plan.places:
        bookmark = ET.SubElement(
            bookmarks,
            "Bookmark",
            id=place.region_id,
            name=f"{place.rank:0{max(width, 3)}d} {place.region_id}",
            group="Regions by rank",
            extent=box(*place.padded(0.5), ccw=False).wkt,
        )
        bookmark.append(srs_element(plan.crs))
    return bookmarks


def _metadata(plan: _Plan, title: str) -> ET.Element:
    element = ET.Element("projectMetadata")
    about = (
        f"{counted(len(plan.places), 'region')} to review. Set the status of a region in the layer "
        "Query regions, correct the polygons of the layer Answers, save both, close QGIS, and take "
        "the GeoPackage in with: geohsal ingest"
    )
    names = {"geohsal": "geohsal", "run": "run", "request": "query", "model_hash": "model"}
    known = [f"{label} {plan.about[key]}" for key, label in names.items() if key in plan.about]
    for tag, text in (
        ("identifier", str(plan.about.get("fingerprint", ""))),
        ("title", title),
        ("abstract", about),
        ("history", ", ".join(known)),
    ):
        ET.SubElement(element, tag).text = text
    return element


def _zipped(text: str, *, name: str) -> bytes:
    """A .qgz: the same text gives the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name, _ZIP_TIME)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, text.encode())
    return stream.getvalue()


def _embed(review: Path, content: bytes) -> None:
    """Store the project inside the review file, where QGIS's browser finds it."""
    about = {"last_modified_time": now_text(), "last_modified_user": "geohsal"}
    with replacing(review) as part:
        shutil.copyfile(review, part)
        try:
            with closing(sqlite3.connect(part)) as connection:
                with connection:
                    forget_project(connection)
                    connection.execute(_TABLE)
                    connection.execute(  # QGIS stores the archive as hexadecimal text
                        "INSERT INTO qgis_projects VALUES(?, ?, ?)",
                        (EMBEDDED, json.dumps(about), content.hex()),
                    )
                connection.execute("VACUUM")
        except sqlite3.Error as error:
            raise unwritten(review, error) from error
