"""One picture of one scene and round: image, truth, map, mistakes, error and queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from shapely import Polygon, get_parts
from shapely.affinity import affine_transform

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.geo.states import IGNORE_INDEX
from geohsal.io.atomic import replacing
from geohsal.io.labels import read_truth
from geohsal.io.manifest import Manifest, load_manifest
from geohsal.io.raster import open_scene
from geohsal.io.run import Round, open_run

NOTHING = "#f2f2f2"
RIGHT, WRONG = "#dcdcdc", "#d7191c"
ASKED, AUDITED = "#ffd400", "#00e5ff"
TEACHER_BAND = 2
"""Band of the class raster that accuracy is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """What the picture shows; arrays are (row, col), outlines (x, y) in pixels.

    `picture` is (row, col, 3) in [0, 1]; `truth` and `predicted` hold class ids, 255 for none;
    `asked` are the outlines of regions with whether they are audits.
    """

    title: str
    picture: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    error: NDArray[np.float32]
    asked: Sequence[tuple[Polygon, bool]]
    classes: Sequence[ClassInfo]


def draw_round(run_dir: Path, round_index: int, *, out: Path, scene_id: str | None = None) -> Path:
    """Write the PNG of a queried round; without `scene_id` of the scene with most questions.

    Raises:
        DataError: the round's rasters or review file cannot be read.
    """
    run = open_run(run_dir)
    round_, manifest = run.round(round_index), load_manifest(run.manifest)
    asked = _read_asked(round_)
    if scene_id is None:
        counts = asked["scene_id"].value_counts()
        scene_id = min(counts.index, key=lambda name: (-counts[name], name))
    draw(_load(round_, manifest, asked[asked["scene_id"] == scene_id], scene_id=scene_id), out)
    return out


def natural_colour(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(row, col, 3) in [0, 1] from (red, green, blue), stretched between 1 and 99 per cent."""
    low, high = np.percentile(image[:, valid], [1, 99], axis=1)[:, :, None, None]
    stretched = np.clip((image - low) / np.maximum(high - low, 1e-6), 0, 1) ** 0.8
    stretched = np.where(valid, stretched, 1.0)
    return np.moveaxis(stretched, 0, -1).astype(np.float32)


def _read_asked(round_: Round) -> geopandas.GeoDataFrame:
    path = round_.queries()
    try:
        return pyogrio.read_dataframe(
            path, layer="query_regions", columns=["scene_id", "rank", "audit"]
        )
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _load(
    round_: Round, manifest: Manifest, asked: geopandas.GeoDataFrame, *, scene_id: str
) -> Panels:
    source = manifest.scene(scene_id)
    with open_scene(source, manifest.bands, max_pixels=100_000_000) as reader:
        scene: Scene = reader.scene
        image, valid = reader.read_with_valid(scene.extent)
    shown = [manifest.bands.index(name) for name in _shown(manifest.bands)]
    truth = np.full(scene.shape, IGNORE_INDEX, np.uint8)
    if source.truth is not None:
        truth = read_truth(source.truth, scene, manifest.classes, where=scene_id)
    with rasterio.open(round_.raster(scene_id, "class")) as raster:
        predicted = raster.read(TEACHER_BAND)
    with rasterio.open(round_.raster(scene_id, "error")) as raster:
        error = raster.read(1).astype(np.float32)
    return Panels(
        title=f"{manifest.name}: scene {scene_id}, round {round_.index}",
        picture=natural_colour(image[shown], valid),
        truth=np.where(valid, truth, IGNORE_INDEX).astype(np.uint8),
        predicted=np.where(valid, predicted, IGNORE_INDEX).astype(np.uint8),
        error=np.where(valid, error, np.nan).astype(np.float32),
        asked=_outlines(asked, scene),
        classes=manifest.classes,
    )


def _shown(bands: Sequence[str]) -> Sequence[str]:
    """Names of the bands that stand for red, green and blue."""
    natural = ("red", "green", "blue")
    if all(name in bands for name in natural):
        return natural
    return [bands[min(number, len(bands) - 1)] for number in range(3)]


def _outlines(asked: geopandas.GeoDataFrame, scene: Scene) -> list[tuple[Polygon, bool]]:
    placed = asked.to_crs(scene.crs) if scene.crs is not None and asked.crs is not None else asked
    back = ~scene.transform
    matrix = [back.a, back.b, back.d, back.e, back.c, back.f]
    return [
        (affine_transform(part, matrix), bool(audit))
        for geometry, audit in zip(placed.geometry, placed["audit"], strict=True)
        for part in get_parts(geometry)
    ]


def draw(panels: Panels, path: Path) -> None:
    """Draw the panels into a PNG."""
    height, width = panels.truth.shape
    figure = Figure(figsize=(16.5, 10.8 * height / width + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(panels.title, fontsize=18)
    _show_image(axes[0, 0], panels)
    _show_classes(axes[0, 1], panels.truth, panels.classes, title="Truth")
    _show_classes(axes[0, 2], panels.predicted, panels.classes, title="Map (teacher)")
    _show_mistakes(axes[1, 0], panels)
    shown = axes[1, 1].imshow(panels.error, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
    axes[1, 1].set_title("Probability of an error, and what is asked", fontsize=14)
    figure.colorbar(shown, ax=axes[1, 1], shrink=0.75, pad=0.01)
    _outline(axes[1, 1], panels)
    _show_legend(axes[1, 2], panels)
    with replacing(path) as part:
        figure.savefig(part, dpi=100)


def _show_image(axis: Axes, panels: Panels) -> None:
    axis.imshow(panels.picture, interpolation="nearest")
    axis.set_title("Image, and what is asked", fontsize=14)
    _outline(axis, panels)


def _show_classes(
    axis: Axes, classes: NDArray[np.uint8], infos: Sequence[ClassInfo], *, title: str
) -> None:
    colours = [info.color for info in infos]
    codes = np.where(classes == IGNORE_INDEX, len(infos), classes)
    norm = BoundaryNorm(np.arange(-0.5, len(infos) + 1), len(infos) + 1)
    table = ListedColormap([*colours, NOTHING])
    axis.imshow(codes, cmap=table, norm=norm, interpolation="nearest")
    axis.set_title(title, fontsize=14)


def _show_mistakes(axis: Axes, panels: Panels) -> None:
    known = (panels.truth != IGNORE_INDEX) & (panels.predicted != IGNORE_INDEX)
    wrong = known & (panels.truth != panels.predicted)
    codes = np.where(known, wrong.astype(np.uint8), 2)
    axis.imshow(
        codes,
        cmap=ListedColormap([RIGHT, WRONG, "white"]),
        vmin=0,
        vmax=2,
        interpolation="nearest",
    )
    share = 100 * wrong.sum() / max(int(known.sum()), 1)
    axis.set_title(f"Mistakes of the map: {share:.1f} % of the scene", fontsize=14)


def _outline(axis: Axes, panels: Panels) -> None:
    for polygon, audit in panels.asked:
        x, y = np.asarray(polygon.exterior.coords).T - 0.5  # imshow puts pixel centres at integers
        axis.plot(x, y, color="black", linewidth=3.0)
        axis.plot(x, y, color=AUDITED if audit else ASKED, linewidth=1.6)
    axis.set_xlim(-0.5, panels.truth.shape[1] - 0.5)
    axis.set_ylim(panels.truth.shape[0] - 0.5, -0.5)


def _show_legend(axis: Axes, panels: Panels) -> None:
    axis.set_axis_off()
    handles: list[Patch | Line2D] = [
        Patch(facecolor=info.color, edgecolor="black", label=info.name.replace("_", " "))
        for info in panels.classes
    ]
    handles += [
        Patch(facecolor=NOTHING, edgecolor="black", label="nodata"),
        Patch(facecolor=WRONG, label="mistake of the map"),
        Patch(facecolor=RIGHT, label="right"),
        Line2D([], [], color=ASKED, linewidth=3, label="region asked for its score"),
        Line2D([], [], color=AUDITED, linewidth=3, label="region drawn at random (audit)"),
    ]
    axis.legend(handles=handles, loc="center", fontsize=15, frameon=False)
