"""What a machine has, and what to do where it lacks something; the network is not tried."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyogrio
import pyproj
import rasterio
import rasterio.warp
import torch
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geohsal.io.gdal import allowed_cores
from geohsal.io.run import Run
from geohsal.kernels.plar import LEAST_HALF_DIM, Kernel, resolve_kernel, why_unavailable
from geohsal.workflows.doctor_check import GIB, Check, Level
from geohsal.workflows.doctor_node import (
    check_gdal_variables,
    check_gpus,
    check_place,
    check_run,
    check_scratch,
    check_slurm,
    check_weights,
)

PYTHON_FROM, PYTHON_BELOW = (3, 11), (3, 14)
DISK_NOTE_GIB, DISK_BAD_GIB = 5.0, 0.5
GDAL_VARIABLES = ("GDAL_DATA", "PROJ_LIB", "PROJ_DATA", "GDAL_DRIVER_PATH")
QGIS_NAMES = ("qgis", "qgis-ltr", "qgis-bin", "qgis-ltr-bin")
QGIS_APPS = ("/Applications/QGIS.app", "/Applications/QGIS-LTR.app")
KNOWN_POINT = ((500_000.0, 5_200_000.0), (9.0, 46.95353))
"""(easting, northing) in EPSG:32632 and (longitude, latitude), good to 0.0001 degrees."""


def doctor(folder: Path, *, run_dir: Path | None = None) -> list[Check]:
    """All checks; `folder` is where runs will be written, `run_dir` a run to be worked on here."""
    checks: list[Callable[[], Check]] = [
        check_python,
        check_torch,
        check_kernel,
        check_gdal,
        lambda: check_position(os.environ),
        check_drivers,
        lambda: check_writing(folder),
        lambda: check_disk(folder),
        lambda: check_scratch(os.environ),
        lambda: check_gdal_variables(os.environ),
        lambda: check_gpus(os.environ),
        lambda: check_place(os.environ),
        check_slurm,
        check_qgis,
    ]
    if run_dir is not None:
        run = Run(path=run_dir)
        checks += [lambda: check_run(run), lambda: check_weights(run)]
    return [check() for check in checks]


def check_lines(checks: Sequence[Check]) -> list[str]:
    """Checks as lines for people."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        advice = f"; {check.advice}" if check.advice else ""
        lines.append(f"{check.level:4}  {check.name:{width}}  {check.found}{advice}")
    return lines


def check_python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        return Check(name="python", level="good", found=found)
    wanted = f"{PYTHON_FROM[0]}.{PYTHON_FROM[1]} to {PYTHON_BELOW[0]}.{PYTHON_BELOW[1] - 1}"
    return Check(name="python", level="bad", found=found, advice=f"use Python {wanted}")


def check_torch() -> Check:
    found = f"torch {torch.__version__}, {allowed_cores()} CPU cores"
    if torch.cuda.is_available():
        names = ", ".join(
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        )
        return Check(
            name="torch", level="good", found=f"{found}, CUDA {torch.version.cuda}: {names}"
        )
    if torch.version.cuda is None:
        advice = "this torch has no CUDA; for a GPU install the build of pytorch.org that fits it"
    else:
        advice = "no GPU answers; check the driver with nvidia-smi"
    advice += "; without one use the preset cpu-small (chosen by itself)"
    return Check(name="torch", level="note", found=f"{found}, no CUDA device", advice=advice)


def check_kernel() -> Check:
    """Which kernel scores pixels under `plar.kernel: auto`, on this machine's first device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kernel = resolve_kernel(Kernel.AUTO, device)
    if device.type == "cpu":
        large = resolve_kernel(Kernel.AUTO, device, dim=LEAST_HALF_DIM)
        found = f"{kernel} on the CPU, {large} from plar.dim {LEAST_HALF_DIM} on"
        return Check(name="plar kernel", level="good", found=found)
    found = f"{kernel} on {torch.cuda.get_device_name(device)}"
    if kernel is Kernel.TRITON:
        return Check(name="plar kernel", level="good", found=found)
    reason = why_unavailable(device)
    return Check(name="plar kernel", level="note", found=f"{found}, not triton", advice=f"{reason}")


def check_gdal() -> Check:
    raster = rasterio.__gdal_version__
    vector = ".".join(str(part) for part in pyogrio.__gdal_version__)
    found = f"GDAL {raster} (rasterio {rasterio.__version__}), {vector} (pyogrio)"
    return Check(name="gdal", level="good", found=f"{found}, PROJ {pyproj.proj_version_str}")


def check_position(environ: "os._Environ[str] | dict[str, str]") -> Check:
    """Whether both PROJ databases answer, and whether another GDAL's variables interfere."""
    planar, expected = KNOWN_POINT
    clash = [name for name in GDAL_VARIABLES if environ.get(name)]
    advice = f"unset {', '.join(clash)}" if clash else "install rasterio and pyproj again"
    try:
        x, y = rasterio.warp.transform(
            CRS.from_epsg(32632), CRS.from_epsg(4326), [planar[0]], [planar[1]]
        )
        by_gdal = (x[0], y[0])
        by_proj = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform(*planar)
    except (RasterioError, pyproj.exceptions.ProjError) as error:
        found = f"coordinates cannot be transformed ({' '.join(str(error).split())})"
        return Check(name="projections", level="bad", found=found, advice=advice)
    for place in (by_gdal, by_proj):
        if max(abs(a - b) for a, b in zip(place, expected, strict=True)) > 1e-4:
            found = f"EPSG:32632 {planar} comes out at {place}, not {expected}"
            return Check(name="projections", level="bad", found=found, advice=advice)
    if clash:
        found = f"work, though {', '.join(clash)} point to another GDAL or PROJ"
        return Check(name="projections", level="note", found=found, advice=f"{advice} if maps move")
    return Check(name="projections", level="good", found="EPSG:32632 to EPSG:4326 agrees")


def check_drivers() -> Check:
    vector = pyogrio.list_drivers(write=True)
    with rasterio.Env() as env:
        raster = env.drivers()
    missing = [name for name in ("GPKG",) if name not in vector]
    missing += [name for name in ("GTiff", "COG") if name not in raster]
    if missing:
        return Check(
            name="formats",
            level="bad",
            found=f"GDAL cannot write {', '.join(missing)}",
            advice="install pyogrio and rasterio from PyPI or conda-forge",
        )
    return Check(name="formats", level="good", found="GeoPackage, GeoTIFF and COG can be written")


def check_writing(folder: Path) -> Check:
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            (Path(scratch) / "trial").write_bytes(b"trial")
    except OSError as error:
        return Check(
            name="writing",
            level="bad",
            found=f"{folder}: {error.strerror or error}",
            advice="choose a folder that exists and may be written",
        )
    return Check(name="writing", level="good", found=f"{folder.absolute()} may be written")


def check_disk(folder: Path) -> Check:
    if not folder.exists():
        return Check(name="disk", level="note", found=f"{folder}: no such folder")
    free = shutil.disk_usage(folder).free / GIB
    found = f"{free:.1f} GiB free"
    if free >= DISK_NOTE_GIB:
        return Check(name="disk", level="good", found=found)
    level: Level = "note" if free >= DISK_BAD_GIB else "bad"
    return Check(name="disk", level=level, found=found, advice="make room before a long run")


def check_qgis() -> Check:
    places = [shutil.which(name) for name in QGIS_NAMES]
    places += [app for app in QGIS_APPS if Path(app).exists()]
    found = next((place for place in places if place), None)
    if found:
        return Check(name="qgis", level="good", found=found)
    return Check(
        name="qgis",
        level="note",
        found="not on this machine",
        advice="a person reviews with QGIS 3.22 or newer, here or wherever the folder is copied",
    )
