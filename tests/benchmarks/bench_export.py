"""Whole maps as polygons: geohsal's export beside gdal_polygonize.py, in the same run.

    python tests/benchmarks/bench_export.py [--size 4000] [--repeats 3] [--out FILE.csv]

The map is synthetic: 8 classes in smooth areas, 0.4 % of the pixels at random. `polygonize` is like
with like: every patch, one attribute, nothing sieved or simplified. `product` is the whole export:
rasters of a round, sieve, gap-free simplification, all attributes; GDAL's side of it sieves and
polygonises, since it has nothing to simplify with. Every measurement is a process of its own (with
its imports); times are by the wall, with the CPU's beside them for busy machines; memory is the
peak of resident memory, temporary files mapped into it included. `time_to_gdal` compares with
GDAL's time for the same format, with that of its GeoPackage where it did not write the format. One
row per method is appended to the results.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
from affine import Affine
from measure import RESULTS, append_rows, commit, cpu_machine, measured, spread
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy.ndimage import zoom

from geohsal.geo.coverage import Strip, affine_move, cover, to_polygons
from geohsal.geo.scene import ClassInfo, Scene
from geohsal.io.polygon_file import PolygonBatch, PolygonLayer, write_polygons
from geohsal.io.review_schema import Field, Layer
from geohsal.io.run import Run
from geohsal.workflows.export_scene import batches, stage, strip_rows

COLUMNS = (
    "commit", "machine", "shape", "task", "method", "format", "repeats", "median_s", "spread_s",
    "cpu_s", "peak_mib", "polygons", "file_mib", "time_to_gdal",
)  # fmt: skip
CLASSES = tuple(ClassInfo(class_id=i, name=f"class {i}", color="#000000") for i in range(8))
TRANSFORM = Affine(10, 0, 500_000, 0, -10, 5_200_000)
SIEVE_PX, SIMPLIFY_PX = 8, 1.0


def noisy_map(size: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Classes 0 to 7: the largest of eight smooth fields, then speckle."""
    rng = np.random.default_rng(seed)
    found = np.zeros((size, size), dtype=np.uint8)
    best = np.full((size, size), -np.inf, dtype=np.float32)
    for class_id in range(len(CLASSES)):
        coarse = rng.normal(size=(size // 40 + 2,) * 2).astype(np.float32)
        field = zoom(coarse, 40, order=1)[:size, :size]
        larger = field > best
        found[larger], best[larger] = class_id, field[larger]
    for top in range(0, size, 500):
        part = found[top : top + 500]
        speckle = rng.random(part.shape, dtype=np.float32) < 0.004
        part[speckle] = rng.integers(0, len(CLASSES), int(speckle.sum()))
    return found


def scene_of(size: int) -> Scene:
    """A scene as large as the map."""
    return Scene(
        scene_id="noisy", crs=CRS.from_epsg(32632), transform=TRANSFORM, height=size, width=size,
        bands=("red",),
    )  # fmt: skip


def write_rasters(folder: Path, size: int) -> None:
    """The map as one GeoTIFF, and as the rasters of round 0 of a run."""
    found, scene = noisy_map(size), scene_of(size)
    round_ = Run(path=folder / "run").round(0)
    round_.rasters.mkdir(parents=True)
    profile = {
        "driver": "GTiff", "height": size, "width": size, "crs": scene.crs, "tiled": True,
        "transform": TRANSFORM, "compress": "deflate", "blockxsize": 512, "blockysize": 512,
    }  # fmt: skip
    files = (
        (folder / "map.tif", found + np.uint8(1), 0),
        (round_.raster("noisy", "class"), found, 255),
        (round_.raster("noisy", "state"), np.full_like(found, 2), 0),
        (round_.raster("noisy", "confidence"), np.full(found.shape, 0.5, np.float32), None),
    )
    for path, array, nodata in files:
        with rasterio.open(
            path, "w", count=1, dtype=array.dtype, nodata=nodata, **profile
        ) as target:
            target.write(array, 1)


def polygonize(source: Path, out: Path) -> None:
    """Every patch of a raster with its value."""
    layer = Layer(
        name="out", title="out", description="", fields=(Field(name="DN", kind="int", alias="DN"),)
    )
    write_polygons(
        out,
        [PolygonLayer(layer=layer, crs="EPSG:32632", batches=_patches(source))],
        classes=CLASSES,
        record={},
    )


def _patches(source: Path) -> Iterator[PolygonBatch]:
    with rasterio.open(source) as raster:
        for complete in cover(_strips(raster), weight=lambda row, _: np.zeros_like(row)):
            if complete.codes.size:
                yield PolygonBatch(
                    polygons=to_polygons(complete.rings, move=affine_move(TRANSFORM)),
                    columns={"DN": complete.codes},
                )


def _strips(raster: rasterio.DatasetReader) -> Iterator[Strip]:
    step, before = strip_rows(scene_of(raster.width)), None
    for top in range(0, raster.height, step):
        rows = min(step, raster.height - top)
        more = min(rows + 1, raster.height - top)
        codes = raster.read(1, window=Window(0, top, raster.width, more))
        yield Strip(
            top=top, codes=codes[:rows], before=before, after=codes[rows] if more > rows else None
        )
        before = codes[rows - 1]


def product(folder: Path, out: Path) -> None:
    """What `geohsal export` does with one scene."""
    run = Run(path=folder / "run")
    with rasterio.open(folder / "map.tif") as raster:
        scene = scene_of(raster.width)
    layer = Layer(
        name="pseudo_labels", title="map", description="",
        fields=(
            Field(name="class_id", kind="int", alias="Class", choices="class"),
            Field(name="class_name", kind="text", alias="Class name"),
            Field(name="source", kind="text", alias="Source"),
            Field(name="confidence", kind="real", alias="Confidence"),
            Field(name="scene_id", kind="text", alias="Scene"),
            Field(name="area_m2", kind="real", alias="Area"),
        ),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        staged = stage(
            run, run.round(0), scene, num_classes=len(CLASSES), what="refined",
            sieve_px=SIEVE_PX, folder=Path(temporary),
        )  # fmt: skip
        rows = batches(staged, CLASSES, scene.crs, simplify_px=SIMPLIFY_PX)
        write_polygons(
            out, [PolygonLayer(layer=layer, crs="EPSG:32632", batches=rows)], classes=CLASSES,
            record={},
        )  # fmt: skip


def commands(folder: Path) -> list[tuple[str, str, Path, list[list[str]]]]:
    """(task, method, output, processes one after the other); GDAL first in each task."""
    source, own = str(folder / "map.tif"), [sys.executable, __file__, "--worker"]

    def gdal(name: str, driver: str, source: str = source) -> list[str]:
        return ["gdal_polygonize.py", "-q", source, "-f", driver, str(folder / name), "out", "DN"]

    sieved = str(folder / "sieved.tif")
    sieve = ["gdal_sieve.py", "-q", "-st", str(SIEVE_PX), "-4", source, sieved]
    found = [
        ("polygonize", "gdal_polygonize.py", "raw_gdal.gpkg", [gdal("raw_gdal.gpkg", "GPKG")]),
        ("polygonize", "gdal_polygonize.py", "raw_gdal.fgb", [gdal("raw_gdal.fgb", "FlatGeobuf")]),
        *(
            ("polygonize", "geohsal", name, [[*own, "polygonize", source, str(folder / name)]])
            for name in ("raw.gpkg", "raw.fgb", "raw.parquet")
        ),
        (
            "product", "gdal_sieve.py + gdal_polygonize.py", "full_gdal.gpkg",
            [sieve, gdal("full_gdal.gpkg", "GPKG", sieved)],
        ),
        *(
            ("product", "geohsal", name, [[*own, "product", str(folder), str(folder / name)]])
            for name in ("full.gpkg", "full.fgb", "full.parquet")
        ),
    ]  # fmt: skip
    return [(task, method, folder / name, processes) for task, method, name, processes in found]


def bench(folder: Path, size: int, repeats: int) -> Iterator[dict[str, object]]:
    """One row per method, methods interleaved."""
    measured([sys.executable, __file__, "--worker", "rasters", str(size), str(folder)])
    plan = commands(folder)
    seconds: list[list[float]] = [[] for _ in plan]
    cpu: list[list[float]] = [[] for _ in plan]
    peaks = [0.0 for _ in plan]
    for _ in range(repeats):
        for number, (_, _, out, processes) in enumerate(plan):
            out.unlink(missing_ok=True)
            (folder / "sieved.tif").unlink(missing_ok=True)
            runs = [measured(process) for process in processes]
            seconds[number].append(sum(run.seconds for run in runs))
            cpu[number].append(sum(run.cpu for run in runs))
            peaks[number] = max(peaks[number], *(run.peak_mib for run in runs))
    gdal: dict[tuple[str, str], float] = {}
    for (task, method, out, _), times, own, peak in zip(plan, seconds, cpu, peaks, strict=True):
        median, least, greatest = spread(times)
        if method != "geohsal":
            gdal[task, out.suffix] = median
        peer = gdal.get((task, out.suffix), gdal[task, ".gpkg"])
        yield {
            "shape": f"{size}x{size}", "task": task, "method": method, "format": out.suffix[1:],
            "repeats": repeats, "median_s": round(median, 2),
            "spread_s": round(greatest - least, 2),
            "cpu_s": round(spread(own)[0], 2), "peak_mib": round(peak),
            "polygons": _count(out), "file_mib": round(out.stat().st_size / 2**20, 1),
            "time_to_gdal": round(median / peer, 3),
        }  # fmt: skip


def _count(path: Path) -> int:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    first = pyogrio.list_layers(path)[0, 0]  # a styled GeoPackage also lists its styles
    return int(pyogrio.read_info(path, layer=first, force_feature_count=True)["features"])


def main() -> None:
    """Measure, print and append; or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "export.csv")
    parser.add_argument("--folder", type=Path, help="where the rasters and polygons are written")
    parser.add_argument("--worker", nargs=3, metavar=("TASK", "SOURCE", "OUT"))
    options = parser.parse_args()
    if options.worker:
        task, source, out = options.worker
        if task == "rasters":
            write_rasters(Path(out), int(source))
        else:
            {"polygonize": polygonize, "product": product}[task](Path(source), Path(out))
        return
    where = {
        "commit": commit(),
        "machine": f"{cpu_machine()}, Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = []
        for row in bench(Path(folder), options.size, options.repeats):
            rows.append(where | row)
            print(row)
    append_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
