"""Layers of a QGIS project: those of the review file and the rasters of the round, styled."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio
from pyproj import CRS
from rasterio.errors import RasterioIOError

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo
from geohsal.io.gdal import quiet, reason
from geohsal.io.qgis_raster import (
    CONFIDENCE_RAMP,
    ERROR_RAMP,
    class_palette,
    paletted,
    picture,
    ramp,
    state_palette,
)
from geohsal.io.qgis_style import layer_body, layer_head
from geohsal.io.review_schema import ANSWERS, PSEUDO_LABELS, UNDECIDED, Layer
from geohsal.io.run import RasterKind, Round

KINDS: tuple[RasterKind, ...] = ("class", "error", "confidence", "state", "view")
"""Rasters of a scene, top to bottom; `view` lies below everything."""

_TITLES: Mapping[RasterKind, str] = {
    "class": "Refined classes",
    "error": "Error probability",
    "confidence": "Confidence",
    "state": "State of every pixel",
}

_HIDDEN = (UNDECIDED, PSEUDO_LABELS)
"""Vector layers that are off until somebody wants them: they would cover the image."""

_SHORT_LEGEND = 20
"""Classes whose colours stay unfolded in the panel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectLayer:
    """One layer: its entry in the tree, and its definition."""

    layer_id: str
    title: str
    source: str
    provider: str
    shown: bool
    expanded: bool
    definition: ET.Element


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRasters:
    """The rasters of one scene, in the order of the legend."""

    scene_id: str
    layers: tuple[ProjectLayer, ...]


def srs_element(crs: CRS | None) -> ET.Element:
    """A CRS as projects hold it; empty where there is no position on Earth.

    QGIS ignores an authority's code alone: the text of the CRS must be there.
    """
    element = ET.Element("spatialrefsys", nativeFormat="Wkt")
    if crs is not None:
        ET.SubElement(element, "wkt").text = crs.to_wkt("WKT2_2019")
        code = crs.to_epsg()
        ET.SubElement(element, "authid").text = f"EPSG:{code}" if code else ""
    return element


def on_earth(text: str | None) -> CRS | None:
    """The CRS of a text (EPSG code or WKT); None for none and for grids without a position."""
    crs = CRS.from_user_input(text) if text else None
    return None if crs is None or crs.is_engineering else crs


def vector_layer(
    layer: Layer, file_name: str, classes: Sequence[ClassInfo], crs: CRS | None
) -> ProjectLayer:
    """A layer of the review file that lies beside the project."""
    source = f"./{file_name}|layername={layer.name}"
    definition = ET.Element(
        "maplayer",
        {
            **layer_head(layer),
            "type": "vector",
            "geometry": "Polygon",
            "wkbType": "MultiPolygon",
        },
    )
    layer_id = f"layer_{layer.name}"
    _describe(definition, layer_id, layer.title, source, crs, about=layer.description)
    ET.SubElement(definition, "provider", encoding="UTF-8").text = "ogr"
    definition.extend(layer_body(layer, classes))
    return ProjectLayer(
        layer_id=layer_id,
        title=layer.title,
        source=source,
        provider="ogr",
        shown=layer.name not in _HIDDEN,
        expanded=layer.name == ANSWERS and len(classes) <= _SHORT_LEGEND,
        definition=definition,
    )


def scene_rasters(
    scene_id: str, round_: Round, classes: Sequence[ClassInfo]
) -> SceneRasters | None:
    """The rasters of a scene that the round has; None where it has none.

    Raises:
        DataError: one of them is damaged.
    """
    paths = {kind: round_.raster(scene_id, kind) for kind in KINDS}
    layers = [
        _raster_layer(scene_id, kind, path, round_.dir, classes)
        for kind, path in paths.items()
        if path.exists()
    ]
    return SceneRasters(scene_id=scene_id, layers=tuple(layers)) if layers else None


def _raster_layer(
    scene_id: str, kind: RasterKind, path: Path, folder: Path, classes: Sequence[ClassInfo]
) -> ProjectLayer:
    try:
        with quiet(), rasterio.open(path) as raster:
            bands, crs = tuple(raster.descriptions), raster.crs
    except RasterioIOError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    draw: Mapping[RasterKind, Callable[[], ET.Element]] = {
        "class": lambda: paletted(class_palette(classes)),
        "state": lambda: paletted(state_palette()),
        "error": lambda: ramp(ERROR_RAMP),
        "confidence": lambda: ramp(CONFIDENCE_RAMP),
        "view": lambda: picture(len(bands)),
    }
    title = _TITLES.get(kind) or f"Picture: {', '.join(name or '?' for name in bands)}"
    source = f"./{path.relative_to(folder).as_posix()}"
    layer_id = f"raster_{scene_id}_{kind}"
    definition = ET.Element("maplayer", type="raster", hasScaleBasedVisibilityFlag="0")
    _describe(definition, layer_id, title, source, on_earth(crs.to_wkt() if crs else None))
    ET.SubElement(definition, "provider").text = "gdal"
    definition.append(draw[kind]())
    ET.SubElement(definition, "blendMode").text = "0"
    return ProjectLayer(
        layer_id=layer_id,
        title=title,
        source=source,
        provider="gdal",
        shown=kind == "view",
        expanded=False,
        definition=definition,
    )


def _describe(
    definition: ET.Element,
    layer_id: str,
    title: str,
    source: str,
    crs: CRS | None,
    *,
    about: str = "",
) -> None:
    for tag, text in (
        ("id", layer_id),
        ("datasource", source),
        ("layername", title),
        ("abstract", about),
    ):
        ET.SubElement(definition, tag).text = text
    ET.SubElement(definition, "srs").append(srs_element(crs))
