"""The review page of a round: one HTML file that asks about whole regions, for want of a QGIS.

The page holds everything it shows and is forbidden to load anything; what a person decides stays in
the browser until it is saved as decisions.csv (`decisions_csv`). Outlines are edited in QGIS only.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.windows import Window
from shapely.affinity import translate

from geohsal.config import OutputConfig
from geohsal.errors import DataError
from geohsal.geo.patches import find_patches, pad_window
from geohsal.geo.polygons import mask_to_multipolygon
from geohsal.geo.scene import ClassInfo, MapReader, QueryRegion, Scene
from geohsal.io.atomic import write_text
from geohsal.io.closed_page import closed_page, filled
from geohsal.io.decisions_csv import COLUMNS, FORMAT_VERSION
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason
from geohsal.io.run import Round
from geohsal.io.web_picture import small_shape, svg_path

CONTEXT_SHARE = 0.75
"""Surroundings on each side of a region, in sides of its cell."""

CHIP_PX = 512
"""Largest side of a picture; larger windows are averaged down."""

SHARP_PX = 192
"""Smaller pictures are enlarged pixel by pixel, so that compression does not blur the pixels."""

QUALITY = 85


def page_path(review_file: Path) -> Path:
    """Where the page of a review file lies: beside it."""
    return review_file.with_suffix(".html")


def write_page(
    review_file: Path,
    *,
    round_: Round,
    regions: Sequence[QueryRegion],
    scenes: Mapping[str, Scene],
    maps: MapReader,
    classes: Sequence[ClassInfo],
    config: OutputConfig,
    run: str,
    request: str,
) -> Path:
    """Write the page beside a review file.

    Args:
        review_file: the .gpkg about the same regions.
        round_: whose pictures (`view` rasters) are shown.
        regions: of one round.
        scenes: by scene id; those of `regions` at least.
        maps: read in the windows of the regions.
        classes: in the order of their ids.
        config: sieve of the suggestions, as in the review file.
        run: name of the run.
        request: of the query; decisions carry it.

    Raises:
        DataError: a picture is missing or damaged, or the page cannot be written.
    """
    path = page_path(review_file)
    ranked = sorted(regions, key=lambda region: (region.rank, region.region_id))
    content = {
        "run": run,
        "round": round_.index,
        "request": request,
        "file": review_file.name,
        "csv": f"{review_file.stem}_decisions.csv",
        "columns": COLUMNS,
        "format_version": FORMAT_VERSION,
        "classes": [
            {
                "id": info.class_id,
                "name": info.name,
                "color": info.color,
                "description": info.description,
            }
            for info in classes
        ],
        "regions": [
            _region(region, scenes[region.scene_id], maps, round_, config) for region in ranked
        ],
    }
    write_text(path, _page(content, title=f"Review of {run}, round {round_.index}"))
    return path


def _page(content: Mapping[str, Any], *, title: str) -> str:
    body = filled("review_page.html", {"title": html.escape(title), "data": _inert(content)})
    return closed_page("review_page", title=title, scheme="light dark", body=body.rstrip())


def _inert(content: Mapping[str, Any]) -> str:
    """JSON that no text in it can end: inside a script element only `<` and `&` could matter."""
    text = json.dumps(content, separators=(",", ":"))  # ASCII: line separators are escaped too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _region(
    region: QueryRegion, scene: Scene, maps: MapReader, round_: Round, config: OutputConfig
) -> dict[str, Any]:
    cell = region.cell
    pad = round(CONTEXT_SHARE * max(int(cell.width), int(cell.height)))
    window = pad_window(cell, pad, scene)
    right, down = int(cell.col_off - window.col_off), int(cell.row_off - window.row_off)
    refined = maps(region.scene_id, cell).refined
    found = find_patches(refined, mask=region.mask, sieve_px=config.sieve_px)
    outline = mask_to_multipolygon(region.mask, transform=Affine.translation(right, down))
    image, bands = _picture(round_.raster(region.scene_id, "view"), window)
    return {
        "id": region.region_id,
        "scene": region.scene_id,
        "rank": region.rank,
        "reason": region.reason,
        "error": round(region.error_probability, 3),
        "undecided": round(region.undecided_share, 3),
        "teacher": region.teacher_class,
        "plar": region.plar_class,
        "pixels": region.pixels,
        "area": None if region.area_m2 is None else round(region.area_m2),
        "audit": region.audit,
        "width": int(window.width),
        "height": int(window.height),
        "close": _close_up(cell, window),
        "image": image,
        "bands": bands,
        "outline": svg_path(outline),
        "patches": [
            {
                "class": int(code),
                "pixels": int(pixels),
                "path": svg_path(translate(polygon, right, down)),
            }
            for code, pixels, polygon in zip(found.codes, found.pixels, found.polygons, strict=True)
        ],
    }


def _close_up(cell: Window, window: Window) -> list[int]:
    """(x, y, width, height) of the cell and a thin rim, in pixels of the window."""
    rim = 2
    left, top = int(cell.col_off - window.col_off), int(cell.row_off - window.row_off)
    return [left - rim, top - rim, int(cell.width) + 2 * rim, int(cell.height) + 2 * rim]


def _picture(path: Path, window: Window) -> tuple[str, str]:
    """(a window of the scene's picture as a data URI, transparent without data; its bands)."""
    shape = small_shape(window.height, window.width, longest=CHIP_PX)
    try:
        with quiet(), rasterio.open(path) as source:
            levels: NDArray[np.uint8] = source.read(
                window=window, out_shape=(source.count, *shape), resampling=Resampling.average
            )
            names = [name or f"band {number}" for number, name in enumerate(source.descriptions, 1)]
    except GDAL_ERRORS as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); run geohsal query --overwrite"
        ) from None
    valid = (levels != 0).any(axis=0)
    colors = levels if len(levels) >= 3 else levels[:1].repeat(3, axis=0)
    layers = np.concatenate([colors[:3], 255 * valid[np.newaxis]]).astype(np.uint8)
    enlarge = max(1, SHARP_PX // max(shape))
    large = layers.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(large.transpose(1, 2, 0))).save(
        stream, "WEBP", quality=QUALITY, method=4
    )
    image = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return image, ", ".join(names[:3])
