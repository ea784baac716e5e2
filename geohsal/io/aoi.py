"""Area of interest: only pixels whose centre lies inside count as valid."""

import hashlib

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import GeoreferenceError, LabelError
from geohsal.geo.polygons import burn
from geohsal.geo.scene import Scene
from geohsal.io.vector import defect, layer_names, listing, read_layer, to_pixels


class AreaOfInterest:
    """Polygons of a vector file in a scene's pixel coordinates, ready to be cut by windows."""

    def __init__(self, path: str, scene: Scene, *, where: str) -> None:
        where = f"{where}: aoi {path}"
        names = layer_names(path, where=where)
        if len(names) != 1:
            found = ", ".join(names) or "none"
            raise LabelError(f"{where}: must have one layer of polygons, found {found}")
        layer = read_layer(path, layer=names[0], field=None, where=where)
        bad = [
            f"fid {fid}: {why}"
            for fid, geometry in zip(layer.fids, layer.geometries, strict=True)
            if (why := defect(geometry))
        ]
        if bad:
            raise LabelError(f"{where}: {listing(bad)}; repair it (QGIS: Fix geometries)")
        whole = [geometry for geometry in layer.geometries if geometry is not None]
        pixels = to_pixels(whole, layer.crs, scene, where=where)
        self.digest = hashlib.sha256(b"".join(shapely.to_wkb(pixels).tolist())).hexdigest()
        self._tree = shapely.STRtree(pixels)
        if not len(self._tree.query(shapely.box(0, 0, scene.width, scene.height), "intersects")):
            raise GeoreferenceError(f"{where}: does not touch the scene; check its CRS and place")

    def extent(self, window: Window) -> Window | None:
        """The part of a window in which its polygons lie; None where there are none."""
        col, row = int(window.col_off), int(window.row_off)
        right, bottom = col + int(window.width), row + int(window.height)
        near = self._tree.query(shapely.box(col, row, right, bottom), "intersects")
        if not near.size:
            return None
        parts = shapely.clip_by_rect(self._tree.geometries[near], col, row, right, bottom)
        bounds = shapely.total_bounds(parts)
        if not np.isfinite(bounds).all():
            return None
        left, top = (int(value) for value in np.floor(bounds[:2]))
        last, low = (int(value) for value in np.ceil(bounds[2:]))
        width, height = min(last, right) - left, min(low, bottom) - top
        return Window(left, top, width, height) if width > 0 and height > 0 else None

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """True where a pixel's centre is inside (row, col of the window)."""
        col, row = int(window.col_off), int(window.row_off)
        width, height = int(window.width), int(window.height)
        box = (col - 1, row - 1, col + width + 1, row + height + 1)
        near = self._tree.query(shapely.box(*box), "intersects")
        parts = [shapely.clip_by_rect(self._tree.geometries[index], *box) for index in near]
        burnt = burn(
            [(part, 1) for part in parts],
            transform=Affine.translation(col, row),
            shape=(height, width),
            fill=0,
            dtype=np.uint8,
        )
        return np.asarray(burnt == 1)
