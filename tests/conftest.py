"""Factories: tests make the rasters, GeoPackages and manifests they need, in `tmp_path`."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: tests share the cores
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from hypothesis import settings
from numpy.typing import ArrayLike
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from shapely.geometry.base import BaseGeometry

# shared machines stall: time is no property; the same examples for everybody who checks one commit
settings.register_profile("geohsal", deadline=None, derandomize=True)
# --hypothesis-profile=explore, as nightly.sh does: other examples each time, and more of them
settings.register_profile("explore", deadline=None, max_examples=300, print_blob=True)
settings.load_profile("geohsal")

RasterFactory = Callable[..., Path]
GpkgFactory = Callable[..., Path]
ManifestFactory = Callable[..., Path]

UTM = "EPSG:32632"
TRANSFORM = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
"""10 m pixels in UTM zone 32N: where factories put things unless told otherwise."""

CLASSES: tuple[dict[str, Any], ...] = (
    {"id": 0, "name": "water", "color": "#0000ff"},
    {"id": 1, "name": "forest", "color": "#00ff00"},
    {"id": 2, "name": "building", "color": "#ff0000", "description": "roofs seen from above"},
)
"""Classes of a manifest unless told otherwise."""


REAL_DATA = Path(
    os.environ.get("GEOHSAL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who finds a run locked is refused soon; the warning of folders without locks is new."""
    from geohsal.io import lock

    monkeypatch.setattr(lock, "PATIENCE_S", 0.05)
    lock._warn.cache_clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real scenes; tests that need it are marked `real`."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real scenes at {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def make_raster(tmp_path: Path) -> RasterFactory:
    """`make_raster(name, array, ...)` writes a GeoTIFF under tmp_path and gives back its path."""

    def make(
        name: str | Path,
        array: ArrayLike,
        *,
        crs: str | None = UTM,
        transform: Affine | None = TRANSFORM,
        nodata: float | None = None,
        mask: ArrayLike | None = None,
        colorinterp: Sequence[ColorInterp] | None = None,
        descriptions: Sequence[str | None] | None = None,
        colormap: Mapping[int, tuple[int, ...]] | None = None,
        **profile: Any,
    ) -> Path:
        """Array (band, row, col) or (row, col); `mask` (row, col) is written inside the file."""
        bands = np.asarray(array)
        bands = bands[None] if bands.ndim == 2 else bands
        count, height, width = bands.shape
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
        place = {"crs": crs, "nodata": nodata} | ({"transform": transform} if transform else {})
        with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", **({"driver": "GTiff"} | shape | place | profile)) as out:
                if colorinterp is not None:  # a TIFF takes alpha only before pixels
                    out.colorinterp = tuple(colorinterp)
                out.write(bands)
                for index, text in enumerate(descriptions or (), start=1):
                    out.set_band_description(index, text)
                if colormap is not None:
                    out.write_colormap(1, dict(colormap))
                if mask is not None:
                    out.write_mask(np.asarray(mask, dtype=bool))
        return path

    return make


@pytest.fixture
def make_gpkg(tmp_path: Path) -> GpkgFactory:
    """`make_gpkg(name, features, ...)` writes (adds) one layer and gives back the file's path."""

    def make(
        name: str | Path,
        features: Sequence[tuple[BaseGeometry | None, Mapping[str, Any]]],
        *,
        crs: str | None = UTM,
        layer: str = "labels",
        driver: str = "GPKG",
    ) -> Path:
        """Features are (geometry, {field: value}); a file that exists gets one more layer."""
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        frame = geopandas.GeoDataFrame(
            [dict(fields) for _, fields in features],
            geometry=[geometry for geometry, _ in features],
            crs=crs,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            frame.to_file(path, layer=layer, driver=driver, engine="pyogrio")
        return path

    return make


@pytest.fixture
def make_manifest(tmp_path: Path) -> ManifestFactory:
    """`make_manifest(scenes, ...)` writes a manifest under tmp_path and gives back its path."""

    def make(
        scenes: Sequence[Mapping[str, Any]] = ({"id": "north", "image": "north.tif"},),
        *,
        bands: Sequence[str] = ("red", "green", "blue"),
        classes: Sequence[Mapping[str, Any]] = CLASSES,
        filename: str = "data_manifest.yaml",
        **keys: Any,
    ) -> Path:
        """Other top-level keys (`blocks`, `name`, `version`) as keywords; None drops a key."""
        content: dict[str, Any] = {
            "version": 1,
            "name": "test-town",
            "classes": [_plain(entry) for entry in classes],
            "bands": list(bands),
            "scenes": [_plain(scene) for scene in scenes],
        } | keys
        path = tmp_path / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {key: value for key, value in content.items() if value is not None}
        path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
        return path

    return make


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value
