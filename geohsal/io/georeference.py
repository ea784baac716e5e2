"""Where a raster lies: its CRS and transform, or a clear word on what is missing."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import CRSError as ProjCRSError
from rasterio.crs import CRS

from geohsal.errors import GeoreferenceError
from geohsal.geo.scene import Scene

GRID_TOLERANCE_PX = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """CRS and transform of a raster; `local`: a pixel grid without a position on Earth."""

    crs: CRS | None
    transform: Affine
    local: bool


def locate(dataset: Any, manifest_crs: str | None, *, where: str) -> Place:
    """Where an open rasterio dataset lies; `manifest_crs` is the scene's `crs:` key.

    Raises:
        GeoreferenceError: no CRS, no transform, a transform without area, or only control points.
    """
    transform: Affine = dataset.transform
    placed = not transform.is_identity
    own = dataset.crs or None
    if manifest_crs == "local":
        if own is not None and placed and not is_engineering(own):
            raise GeoreferenceError(
                f"{where}: crs: local, but the file lies in {own.to_string()[:60]}; remove crs:"
            )
        return Place(crs=own if is_engineering(own) else None, transform=transform, local=True)
    if not placed and (dataset.gcps[0] or dataset.rpcs):
        raise GeoreferenceError(
            f"{where}: only control points (GCPs or RPCs) say where it lies; warp it first, "
            "for example: gdalwarp -t_srs EPSG:... in.tif out.tif"
        )
    if own is None and manifest_crs is None and not placed:
        raise GeoreferenceError(
            f"{where}: has neither a CRS nor a transform; georeference it, or set crs: local in "
            "its scene for a pixel grid without a position"
        )
    crs = _crs(own, manifest_crs, where=where)
    local = is_engineering(crs) or not _on_earth(crs)
    if not local and not (crs.is_projected or crs.is_geographic):
        raise GeoreferenceError(
            f"{where}: its CRS is neither projected nor geographic; warp it to one that is"
        )
    if not local and not placed:
        raise GeoreferenceError(
            f"{where}: has a CRS but no transform, so its pixels lie nowhere; add a world file or "
            "a geotransform (gdal_edit.py -a_ullr), or set crs: local"
        )
    if not 0.0 < abs(transform.determinant) < math.inf:  # NaN is neither
        raise GeoreferenceError(f"{where}: its transform gives pixels no area; repair the file")
    return Place(crs=crs, transform=transform, local=local)


def _crs(own: CRS | None, manifest_crs: str | None, *, where: str) -> CRS:
    if own is None and manifest_crs is None:
        raise GeoreferenceError(
            f'{where}: has no CRS; add crs: "EPSG:..." (or crs: local, for a pixel grid without a '
            "position) to its scene in the manifest, or write the CRS into the file (gdal_edit.py "
            "-a_srs)"
        )
    if manifest_crs is None:
        return own
    wanted = CRS.from_user_input(manifest_crs)
    if own is not None and own != wanted:
        raise GeoreferenceError(
            f"{where}: crs: says {manifest_crs}, but the file says {own.to_string()[:60]}; "
            "crs: is only for files without a CRS: remove it or repair the file"
        )
    return wanted


def is_engineering(crs: CRS | None) -> bool:
    """Whether a CRS is an engineering one (LOCAL_CS): a grid without a position on Earth."""
    if crs is None or crs.is_projected or crs.is_geographic:
        return False
    wkt: str = crs.to_wkt()
    try:
        return pyproj.CRS.from_wkt(wkt).is_engineering
    except ProjCRSError:
        return wkt.startswith(("LOCAL_CS", "ENGCRS", "ENGINEERINGCRS"))


def _on_earth(crs: CRS) -> bool:
    """False for other planets: their ground has no place in EPSG:4326, so they count as local."""
    try:
        ellipsoid = pyproj.CRS.from_wkt(crs.to_wkt()).ellipsoid
    except ProjCRSError:
        return True
    return ellipsoid is None or 6.2e6 < ellipsoid.semi_major_metre < 6.5e6


def same_grid(dataset: Any, scene: Scene) -> bool:
    """Whether an open dataset has the scene's shape and its pixels lie on the scene's pixels."""
    if (dataset.height, dataset.width) != scene.shape:
        return False
    across = _matrix(~scene.transform) @ _matrix(dataset.transform)
    corners = np.array([(x, y, 1.0) for x in (0, scene.width) for y in (0, scene.height)]).T
    return float(np.abs(across @ corners - corners).max()) <= GRID_TOLERANCE_PX


def _matrix(transform: Affine) -> NDArray[np.float64]:
    """3 x 3; products of Affine objects are spelled differently before and after affine 3."""
    return np.array([*list(transform)[:6], 0.0, 0.0, 1.0]).reshape(3, 3)
