"""Write the synthetic example: four scenes in two UTM zones, truth, training polygons, manifest."""

from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from shapely.affinity import affine_transform
from shapely.geometry import Polygon

from geohsal.config import FORMAT_VERSION
from geohsal.errors import RequestError
from geohsal.geo.landscape import CLASSES
from geohsal.geo.landscape_image import (
    BANDS,
    NODATA,
    Landscape,
    make_landscape,
    training_polygons,
)
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import read_json, replacing, write_json, write_text
from geohsal.io.cog import write_cog

GSD = 2.0
"""Side of a pixel in metres."""

MANIFEST_NAME = "data_manifest.yaml"
MANIFEST_TEXT = """\
# data_manifest.yaml: the only list of data. Copy this file, change what differs, and run
#
#     geohsal tile data_manifest.yaml -o my-run
#
# It describes the SYNTHETIC landscape that `geohsal demo` writes, together with this very file;
# nothing in it was measured on Earth. Unknown keys are refused, with a suggestion.
version: 1
name: synthetic-landscape

# Ids are dense from 0; 255 means unlabelled everywhere and is never a class. Colours are what
# QGIS, the maps and the pictures show.
classes:
  - {id: 0, name: water, color: "#2b7bba", description: "river and lake"}
  - {id: 1, name: woodland, color: "#1b6b2f", description: "tree crowns, also single"}
  - {id: 2, name: meadow, color: "#a6d96a", description: "grass: meadows and gardens"}
  - {id: 3, name: cropland, color: "#f0c75e", description: "fields, also bare ones"}
  - {id: 4, name: built_up, color: "#c0392b", description: "roofs, roads and yards"}
  - {id: 5, name: solar, color: "#6a3d9a", description: "solar parks: the rare class"}

# What the network sees, in this order. Found in each file by its band descriptions; where a file
# has none, its scene says so:   bands: {blue: 1, green: 2, red: 3, nir: 4}
bands: [blue, green, red, nir]

# Paths are relative to this file, absolute, https://, s3:// or /vsi... Every scene keeps its own
# CRS, resolution and type. Nodata is what the file says, or `nodata: 0`, `mask: clouds.tif`;
# `aoi: area.gpkg` leaves out what lies outside.
scenes:
  # The usual case. A bare path to labels needs one layer with a field class, class_name or
  # class_id. `truth` is full ground truth: only `answer` and `evaluate` read it,
  # never training. A real project has none.
  - id: west_1
    image: scenes/west_1.tif
    labels: labels/west_1.gpkg
    truth: {path: truth/west_1.tif, ignore: [255]}
    split: train

  # No labels at all: unlabelled data for training, and a place to ask about.
  - id: west_2
    image: scenes/west_2.tif
    truth: {path: truth/west_2.tif, ignore: [255]}
    split: train

  # The next UTM zone. Its labels are in EPSG:4326 (any CRS will do) and named in full. Where the
  # file has other words:   values: {Forest: woodland, Grass: meadow}
  - id: east_1
    image: scenes/east_1.tif
    labels: {path: labels/east_1.gpkg, layer: training, field: class_name, ignore: [unknown]}
    truth: {path: truth/east_1.tif, ignore: [255]}
    split: train

  # Kept apart: `evaluate` measures here, nothing else looks at it. To split one large scene into
  # blocks instead:   split: blocks   (see docs/reference/manifest.md)
  - id: east_2
    image: scenes/east_2.tif
    truth: {path: truth/east_2.tif, ignore: [255]}
    split: test
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """Where a scene lies, and how many training polygons it gets per class id."""

    scene_id: str
    epsg: int
    origin: tuple[float, float]
    polygons: dict[int, int]
    labels_epsg: int = 4326
    layer: str = "training"


SITES = (
    _Site(
        scene_id="west_1",
        epsg=32632,
        origin=(714_000.0, 5_336_000.0),
        polygons={0: 2, 1: 3, 2: 3, 3: 4, 4: 3, 5: 1},
        labels_epsg=32632,
    ),
    _Site(scene_id="west_2", epsg=32632, origin=(715_200.0, 5_336_500.0), polygons={}),
    _Site(
        scene_id="east_1",
        epsg=32633,
        origin=(286_000.0, 5_336_000.0),
        polygons={0: 1, 1: 2, 2: 2, 3: 3, 4: 1, 5: 1},
    ),
    _Site(scene_id="east_2", epsg=32633, origin=(287_200.0, 5_335_600.0), polygons={}),
)


def write_landscape(
    out: Path, *, seed: int = 0, shape: tuple[int, int] = (416, 480), overwrite: bool = False
) -> Path:
    """Write the example below `out` and give back its manifest; written once, then kept.

    Args:
        out: folder for scenes/, truth/, labels/ and the manifest.
        seed: another seed is another landscape.
        shape: (rows, columns) of every scene.
        overwrite: replace an example made with other settings.

    Raises:
        RequestError: the folder holds an example made with another seed or size.
    """
    manifest, record = out / MANIFEST_NAME, out / "landscape.json"
    made = {"format_version": FORMAT_VERSION, "seed": seed, "shape": list(shape)}
    if manifest.exists() and not overwrite:
        found = read_json(record) if record.exists() else None
        if found != made:
            raise RequestError(
                f"{out}: holds an example made with {found or 'unknown settings'}, not {made}; "
                "choose another folder or add --overwrite"
            )
        return manifest
    manifest.unlink(missing_ok=True)
    for number, site in enumerate(SITES):
        _write_site(out, site, shape=shape, rng=np.random.default_rng([seed, number]))
    write_json(record, made)
    write_text(manifest, MANIFEST_TEXT)
    return manifest


def _write_site(
    out: Path, site: _Site, *, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    landscape = make_landscape(*shape, rng=rng)
    scene = Scene(
        scene_id=site.scene_id,
        crs=CRS.from_epsg(site.epsg),
        transform=Affine(GSD, 0.0, site.origin[0], 0.0, -GSD, site.origin[1]),
        height=shape[0],
        width=shape[1],
        bands=BANDS,
    )
    truth = np.where(landscape.valid, landscape.truth, IGNORE_INDEX).astype(np.uint8)
    _write_rasters(out, scene, landscape.image, truth)
    if site.polygons:
        _write_labels(out / "labels" / f"{site.scene_id}.gpkg", site, scene, landscape, rng=rng)


def _write_rasters(
    out: Path, scene: Scene, image: NDArray[np.uint16], truth: NDArray[np.uint8]
) -> None:
    write_cog(
        out / "scenes" / f"{scene.scene_id}.tif",
        image,
        scene=scene,
        nodata=NODATA,
        band_names=BANDS,
        overview_resampling="average",
    )
    write_cog(
        out / "truth" / f"{scene.scene_id}.tif",
        truth,
        scene=scene,
        nodata=IGNORE_INDEX,
        band_names=("class",),
        colors={info.class_id: info.color for info in CLASSES},
        categories={info.class_id: info.name for info in CLASSES},
        overview_resampling="nearest",
    )


def _write_labels(
    path: Path, site: _Site, scene: Scene, landscape: Landscape, *, rng: np.random.Generator
) -> None:
    drawn = training_polygons(landscape, site.polygons, rng=rng)
    frame = geopandas.GeoDataFrame(
        {"class_name": [CLASSES[class_id].name for class_id, _ in drawn]},
        geometry=[_placed(polygon, scene.transform) for _, polygon in drawn],
        crs=site.epsg,
    ).to_crs(site.labels_epsg)
    with replacing(path) as part:
        pyogrio.write_dataframe(frame, part, layer=site.layer, driver="GPKG")


def _placed(polygon: Polygon, transform: Affine) -> Polygon:
    """From pixel coordinates to the CRS of the scene."""
    placed: Polygon = affine_transform(
        polygon,
        [transform.a, transform.b, transform.d, transform.e, transform.c, transform.f],
    )
    return placed
