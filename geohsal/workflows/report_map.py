"""The maps of a report: small layers of each scene, outlines of what is asked, a scale bar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine
from matplotlib import colormaps
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geohsal.geo.budget import counted
from geohsal.geo.ground_scale import bar_metres, column_step_m
from geohsal.geo.polygons import mask_to_multipolygon
from geohsal.geo.scene import ClassInfo, QueryRegion, Scene
from geohsal.geo.states import IGNORE_INDEX, STATE_COLORS, PixelState
from geohsal.io.run import RasterKind, Round
from geohsal.io.web_picture import read_small, svg_path, webp_uri

LONGEST_PX = 1024
"""Long side of a map, at most."""

SHORTEST_LONGEST_PX = 384
FULL_SIZE_SCENES = 4
"""More scenes than these get smaller maps, so that a page stays a page."""

FEW_SCENES = 6
"""Scenes that are shown even where nothing is asked."""

MAPS_BYTES = 5_500_000
"""All maps together; scenes beyond are left out."""

MOST_TITLES = 400
"""Regions of a scene that say who they are; more are drawn as one shape."""

LAYERS: Mapping[str, RasterKind] = {
    "image": "view",
    "classes": "class",
    "error": "error",
    "states": "state",
}
"""Layers of a map, lowest first, and the rasters that they show."""

ERROR_COLORS = "magma"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """The shape of one asked region, or of many of one kind, as an SVG path in scene pixels."""

    path: str
    title: str | None
    audit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleBar:
    """A bar of `metres` that takes `share` of the map's width."""

    metres: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneMap:
    """One scene as the page shows it; `layers` are data URIs by name, `absent` has no raster.

    `shrink` is the side of a shown pixel in pixels of the scene.
    """

    scene: Scene
    layers: Mapping[str, str]
    absent: tuple[str, ...]
    outlines: tuple[Outline, ...]
    regions: int
    bar: ScaleBar | None
    shrink: float

    @property
    def size(self) -> int:
        """Bytes that the map takes in the page, about."""
        shapes = sum(2 * len(item.path) + len(item.title or "") for item in self.outlines)
        return sum(map(len, self.layers.values())) + shapes


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """Maps of the scenes shown; `left_out` names the others."""

    shown: tuple[SceneMap, ...]
    left_out: tuple[str, ...]


def draw_maps(
    round_: Round,
    scenes: Mapping[str, Scene],
    regions: Sequence[QueryRegion],
    classes: Sequence[ClassInfo],
) -> Maps:
    """Maps of the scenes with regions, and of the first few others, in the order of `scenes`.

    Raises:
        DataError: a raster is damaged.
    """
    wanted = chosen_scenes(scenes, {region.scene_id for region in regions})
    longest = longest_px(len(wanted))
    shown: list[SceneMap] = []
    spent = 0
    for scene_id in wanted:
        own = [region for region in regions if region.scene_id == scene_id]
        drawn = draw_scene(round_, scenes[scene_id], own, classes, longest=longest)
        spent += drawn.size
        if spent > MAPS_BYTES:
            break
        shown.append(drawn)
    done = {item.scene.scene_id for item in shown}
    return Maps(shown=tuple(shown), left_out=tuple(name for name in scenes if name not in done))


def chosen_scenes(scenes: Mapping[str, Scene], asked: set[str]) -> list[str]:
    """Scenes in which something is asked, filled up with the first others to a few."""
    others = [name for name in scenes if name not in asked]
    filled = asked | set(others[: max(0, FEW_SCENES - len(asked))])
    first = [name for name in scenes if name in asked]
    return first + [name for name in others if name in filled]


def longest_px(scenes: int) -> int:
    """Long side of the maps where so many scenes are shown."""
    side = LONGEST_PX * (FULL_SIZE_SCENES / max(scenes, FULL_SIZE_SCENES)) ** 0.5
    return max(SHORTEST_LONGEST_PX, int(side))


def draw_scene(
    round_: Round,
    scene: Scene,
    regions: Sequence[QueryRegion],
    classes: Sequence[ClassInfo],
    *,
    longest: int,
) -> SceneMap:
    """All layers of one scene that have a raster."""
    paths = {name: round_.raster(scene.scene_id, kind) for name, kind in LAYERS.items()}
    layers = {}
    for name, path in paths.items():
        if path.exists():
            found = read_small(path, longest=longest, average=name in ("image", "error"))
            layers[name] = webp_uri(
                _pixels(name, found, classes), lossless=name in ("classes", "states")
            )
    step = column_step_m(scene)
    bar = None
    if step is not None:
        metres = bar_metres(step * scene.width)
        bar = ScaleBar(metres=metres, share=metres / (step * scene.width))
    return SceneMap(
        scene=scene,
        layers=layers,
        absent=tuple(name for name in LAYERS if name not in layers),
        outlines=tuple(_outlines(regions)),
        regions=len(regions),
        bar=bar,
        shrink=max(1.0, max(scene.shape) / longest),
    )


def _pixels(
    name: str, found: NDArray[np.generic], classes: Sequence[ClassInfo]
) -> NDArray[np.uint8]:
    if name == "image":
        return view_pixels(found.astype(np.uint8))
    if name == "classes":
        return class_pixels(found[0].astype(np.uint8), classes)
    if name == "states":
        return painted(found[0].astype(np.uint8), state_palette())
    return _error_pixels(found[0].astype(np.float32))


def view_pixels(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (row, col, 4) of a view raster (band, row, col); transparent without data."""
    valid = (levels != 0).any(axis=0)
    colors = levels[:3] if len(levels) >= 3 else levels[:1].repeat(3, axis=0)
    return np.moveaxis(np.concatenate([colors, 255 * valid[np.newaxis]]), 0, -1).astype(np.uint8)


def class_pixels(codes: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """RGBA (row, col, 4) of class ids, transparent where there is none."""
    return painted(codes, {info.class_id: info.color for info in classes})


def state_palette() -> dict[int, str]:
    """Colours of the states that a map shows."""
    return {
        int(state): color for state, color in STATE_COLORS.items() if state != PixelState.NODATA
    }


def painted(codes: NDArray[np.uint8], colors: Mapping[int, str]) -> NDArray[np.uint8]:
    """RGBA (row, col, 4) of codes; what has no colour is transparent."""
    table = np.zeros((IGNORE_INDEX + 1, 4), np.uint8)
    for code, color in colors.items():
        table[code] = [*bytes.fromhex(color[1:]), 255]
    pixels: NDArray[np.uint8] = table[codes]
    return pixels


def _error_pixels(error: NDArray[np.float32]) -> NDArray[np.uint8]:
    known = np.isfinite(error)
    table = _error_table(np.linspace(0, 1, 256))
    levels = np.clip(np.rint(255 * np.where(known, error, 0)), 0, 255).astype(np.uint8)
    pixels: NDArray[np.uint8] = table[levels]
    pixels[~known] = 0
    return pixels


def error_stops(count: int = 6) -> list[tuple[float, str]]:
    """(probability, #rrggbb) along the colours of the error layer."""
    places = np.linspace(0, 1, count)
    return [
        (float(place), f"#{bytes(row[:3]).hex()}")
        for place, row in zip(places, _error_table(places), strict=True)
    ]


def _error_table(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """RGBA (place, 4) of probabilities."""
    colors = np.asarray(colormaps[ERROR_COLORS](places), np.float64)
    return np.rint(255 * colors).astype(np.uint8)


def _outlines(regions: Sequence[QueryRegion]) -> list[Outline]:
    shapes = [(region, svg_path(_shape(region))) for region in regions]
    if len(shapes) <= MOST_TITLES:
        return [
            Outline(path=path, title=_title(region), audit=region.audit) for region, path in shapes
        ]
    found = []
    for audit in (False, True):
        path = "".join(path for region, path in shapes if region.audit == audit)
        if path:
            found.append(Outline(path=path, title=None, audit=audit))
    return found


def _shape(region: QueryRegion) -> BaseGeometry:
    corner = Affine.translation(region.cell.col_off, region.cell.row_off)
    return mask_to_multipolygon(region.mask, transform=corner)


def _title(region: QueryRegion) -> str:
    words = "random audit" if region.audit else region.reason
    return (
        f"Rank {region.rank}: {words}; {counted(region.pixels, 'pixel')}, error probability "
        f"{region.error_probability:.2f} ({region.region_id})"
    )
