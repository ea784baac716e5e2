"""Cloud-optimised GeoTIFFs: written beside their place, with overviews, colours and class names."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import DTypeLike, NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetWriter

from geohsal.geo.scene import Scene
from geohsal.io.atomic import replacing, write_text
from geohsal.io.gdal import copy_raster, new_raster

FORMAT_VERSION = 1
BLOCK_PX = 512
Resampling = Literal["nearest", "average"]


def write_cog(
    path: Path,
    array: NDArray[Any],
    *,
    scene: Scene,
    nodata: float | None,
    band_names: Sequence[str],
    colors: Mapping[int, str] | None = None,
    categories: Mapping[int, str] | None = None,
    overview_resampling: Resampling = "nearest",
) -> None:
    """Write one array on the scene's grid as a COG, whole or not at all.

    Args:
        path: of the .tif; `<path>.aux.xml` beside it holds the class names, if any.
        array: (band, row, col) or (row, col).
        scene: gives CRS, transform and size.
        nodata: value of pixels without data, or None.
        band_names: one description per band.
        colors: value -> #rrggbb of the first band; uint8 only.
        categories: value -> class name, for all bands.
        overview_resampling: nearest for codes, average for quantities.

    Raises:
        DataError: the folder cannot be written.
    """
    bands = array if array.ndim == 3 else array[np.newaxis]
    with open_cog(
        path,
        scene=scene,
        dtype=array.dtype,
        nodata=nodata,
        band_names=band_names,
        colors=colors,
        categories=categories,
        overview_resampling=overview_resampling,
    ) as target:
        target.write(bands)


@contextmanager
def open_cog(
    path: Path,
    *,
    scene: Scene,
    dtype: DTypeLike,
    nodata: float | None,
    band_names: Sequence[str],
    colors: Mapping[int, str] | None = None,
    categories: Mapping[int, str] | None = None,
    overview_resampling: Resampling = "nearest",
    tags: Mapping[str, str] | None = None,
) -> Iterator[DatasetWriter]:
    """A dataset to write windows into; it becomes the COG at `path` if the block succeeds.

    Arguments and errors as in `write_cog`; `tags` are metadata items of the dataset.
    """
    if colors and np.dtype(dtype) != np.uint8:
        raise ValueError(f"a colour table needs uint8, not {np.dtype(dtype)}")
    with replacing(path) as part:
        draft = part.with_name(part.name.replace(".tif", ".draft.tif"))
        try:
            profile = _profile(scene, dtype=dtype, nodata=nodata, names=band_names)
            with new_raster(draft, path, **profile) as target:
                target.descriptions = tuple(band_names)
                target.update_tags(format_version=FORMAT_VERSION, **(tags or {}))
                _interpret(target, colors)
                yield target
            copy_raster(draft, part, path, **_options(overview_resampling))
        finally:
            draft.unlink(missing_ok=True)
            draft.with_name(f"{draft.name}.aux.xml").unlink(missing_ok=True)
        # before the raster takes its place: where that is, nothing is missing
        _write_sidecar(path, bands=len(band_names), colors=colors, categories=categories)


def _profile(
    scene: Scene, *, dtype: DTypeLike, nodata: float | None, names: Sequence[str]
) -> dict[str, Any]:
    # GIS software draws rows downwards only where no transform is written at all
    placed = {} if scene.transform.is_identity else {"transform": scene.transform}
    return placed | {
        "driver": "GTiff",
        "dtype": np.dtype(dtype).name,
        "nodata": nodata,
        "count": len(names),
        "height": scene.height,
        "width": scene.width,
        "crs": scene.crs,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "bigtiff": "if_safer",
    }


def _options(overview_resampling: Resampling) -> dict[str, Any]:
    return {
        "driver": "COG",
        "blocksize": BLOCK_PX,
        "compress": "deflate",
        "predictor": "yes",
        "bigtiff": "if_safer",
        "overview_resampling": overview_resampling,
    }


def _interpret(target: DatasetWriter, colors: Mapping[int, str] | None) -> None:
    if colors and target.count == 1:
        target.write_colormap(1, {value: _rgb(color) for value, color in colors.items()})
    elif target.count not in (3, 4):
        target.colorinterp = [ColorInterp.gray, *[ColorInterp.undefined] * (target.count - 1)]


def _rgb(color: str) -> tuple[int, int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16), 255


def _write_sidecar(
    path: Path,
    *,
    bands: int,
    colors: Mapping[int, str] | None,
    categories: Mapping[int, str] | None,
) -> None:
    """What the TIFF cannot hold, where GDAL and QGIS look for it; old sidecars never stay behind.

    That is class names, and colours where there are several bands (a palette inside such a TIFF
    would turn the second band into transparency).
    """
    sidecar = path.with_name(f"{path.name}.aux.xml")
    names = _names(categories) if categories else ""
    table = _color_table(colors) if colors else ""
    if not names and not table:
        sidecar.unlink(missing_ok=True)
        return
    content = [(table if band == 1 else "") + names for band in range(1, bands + 1)]
    body = "".join(
        f'  <PAMRasterBand band="{band}">\n{text}  </PAMRasterBand>\n'
        for band, text in enumerate(content, start=1)
        if text
    )
    write_text(sidecar, f"<PAMDataset>\n{body}</PAMDataset>\n")


def _names(categories: Mapping[int, str]) -> str:
    lines = "".join(
        f"      <Category>{escape(categories.get(value, ''))}</Category>\n"
        for value in range(max(categories) + 1)
    )
    return f"    <CategoryNames>\n{lines}    </CategoryNames>\n"


def _color_table(colors: Mapping[int, str]) -> str:
    rows = [
        _rgb(colors[value]) if value in colors else (0, 0, 0, 0) for value in range(max(colors) + 1)
    ]
    lines = "".join(
        f'      <Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>\n'
        for red, green, blue, alpha in rows
    )
    return f"    <ColorInterp>Palette</ColorInterp>\n    <ColorTable>\n{lines}    </ColorTable>\n"
