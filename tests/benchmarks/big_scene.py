"""Generated scenes of any size: a four-band 16-bit COG, polygons on it, and their manifest.

    python tests/benchmarks/big_scene.py FOLDER [--size 20000] [--compress zstd]

Pixels are written block by block and depend on their block alone, so that memory stays small and
the same call gives the same values. Smooth fields with noise in the low bits compress about as
satellite scenes do.
"""

import argparse
import shutil
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import rasterio.shutil
import yaml
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window
from shapely.geometry import box

BANDS = ("blue", "green", "red", "nir")
BLOCK = 512
CRS = "EPSG:32632"
TRANSFORM = Affine(10.0, 0.0, 300_000.0, 0.0, -10.0, 5_900_000.0)
CLASSES = ("water", "forest", "meadow", "field")
POLYGON_PX = 24
POLYGON_EVERY = 500
"""One labelled square per this many rows and columns."""


def block_pixels(row: int, col: int, height: int, width: int) -> NDArray[np.uint16]:
    """Pixels (band, row, col) of the block whose upper left corner is (row, col)."""
    rows = np.arange(row, row + height, dtype=np.float32)[:, None]
    cols = np.arange(col, col + width, dtype=np.float32)[None, :]
    smooth = np.sin(rows / 180) * np.cos(cols / 240) + np.sin((rows + cols) / 900)
    noise = np.random.default_rng([row, col]).integers(
        0, 96, (len(BANDS), height, width), np.uint16
    )
    levels = np.array([600, 900, 1200, 2600], dtype=np.float32)[:, None, None]
    return noise + (levels * (1.2 + 0.5 * smooth)).astype(np.uint16)


def write_image(path: Path, size: int, *, compress: str) -> Path:
    """A square COG of `size` pixels a side, in blocks of 512."""
    draft = path.with_name(f".{path.stem}.draft.tif")
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": len(BANDS), "height": size, "width": size,
        "crs": CRS, "transform": TRANSFORM, "nodata": 0, "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "interleave": "pixel", "compress": compress, "predictor": 2,
        "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=256), rasterio.open(draft, "w", **profile) as target:
        for row in range(0, size, BLOCK):
            for col in range(0, size, BLOCK):
                height, width = min(BLOCK, size - row), min(BLOCK, size - col)
                pixels = block_pixels(row, col, height, width)
                target.write(pixels, window=Window(col, row, width, height))
        target.descriptions = BANDS
    rasterio.shutil.copy(
        draft, path, driver="COG", compress=compress, predictor="yes", blocksize=BLOCK,
        bigtiff="if_safer", overview_resampling="nearest",
    )  # fmt: skip
    draft.unlink()
    return path


def write_scene(
    folder: Path, size: int, *, compress: str = "zstd", split: str = "blocks", scenes: int = 1
) -> Path:
    """Image, labels and manifest in a folder; the manifest's path.

    With several `scenes` the others are copies of the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = [write_image(folder / "scene0.tif", size, compress=compress)]
    for number in range(1, scenes):
        images.append(Path(shutil.copyfile(images[0], folder / f"scene{number}.tif")))
    corners = [
        (row, col)
        for row in range(POLYGON_EVERY // 4, size - POLYGON_PX, POLYGON_EVERY)
        for col in range(POLYGON_EVERY // 4, size - POLYGON_PX, POLYGON_EVERY)
    ]
    squares = [
        box(*(TRANSFORM @ (col, row + POLYGON_PX)), *(TRANSFORM @ (col + POLYGON_PX, row)))
        for row, col in corners
    ]
    names = [CLASSES[number % len(CLASSES)] for number in range(len(squares))]
    frame = geopandas.GeoDataFrame({"class_name": names}, geometry=squares, crs=CRS)
    frame.to_file(folder / "labels.gpkg", driver="GPKG")
    manifest = folder / "manifest.yaml"
    content = {
        "version": 1,
        "name": "big scene",
        "classes": [
            {"id": number, "name": name, "color": f"#{number * 60:02x}8040"}
            for number, name in enumerate(CLASSES)
        ],
        "bands": list(BANDS),
        "scenes": [
            {"id": image.stem, "image": image.name, "labels": "labels.gpkg", "split": split}
            for image in images
        ],
    }
    manifest.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return manifest


def main() -> None:
    """Write one scene."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--compress", choices=["zstd", "deflate", "lzw"], default="zstd")
    parser.add_argument("--split", choices=["train", "blocks"], default="blocks")
    options = parser.parse_args()
    size, keys = options.size, {"compress": options.compress, "split": options.split}
    print(write_scene(options.folder, size, **keys))


if __name__ == "__main__":
    main()
