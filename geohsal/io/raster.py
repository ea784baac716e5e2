"""Scenes on disk: one handle per scene that gives windows of pixels and of validity."""

from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import GeohsalError, RasterError
from geohsal.geo.scene import Scene
from geohsal.io.aoi import AreaOfInterest
from geohsal.io.bands import BandPlan, plan_bands
from geohsal.io.fingerprint import file_sha256, fingerprint_of, glance_at
from geohsal.io.gdal import (
    GDAL_ERRORS,
    advice,
    environment,
    is_remote,
    open_raster,
    reason,
)
from geohsal.io.georeference import locate, same_grid
from geohsal.io.manifest import SceneSource


def open_scene(
    source: SceneSource, bands: tuple[str, ...], *, max_pixels: int, verify: bool = True
) -> "SceneReader":
    """A reader of one scene; nothing of its pixels is read yet.

    Args:
        source: the scene's entry in the manifest.
        bands: the manifest's bands; `SceneReader.read` gives them in this order.
        max_pixels: rows x columns beyond which a scene is refused.
        verify: compare the manifest's sha256, where it has one (once per process and file).

    Raises:
        RasterError: missing, unreadable, too large, wrong bands, or another sha256.
        GeoreferenceError: the file or its AOI lies nowhere or elsewhere.
        LabelError: the AOI cannot be read.
    """
    where = f"scene {source.scene_id!r}: {source.image}"
    if verify and source.sha256 is not None:
        _verify(source.image, source.sha256, where=where)
    dataset = _open(source.image, where=where)
    opened = [dataset]
    try:
        scene = _describe(dataset, source, bands, max_pixels=max_pixels, where=where)
        plan = plan_bands(dataset, bands, numbers=source.bands, nodata=source.nodata, where=where)
        mask = None
        if source.mask is not None:
            mask = _open_mask(source.mask, scene, where=where)
            opened.append(mask)
        aoi = AreaOfInterest(source.aoi, scene, where=where) if source.aoi else None
    except GeohsalError:
        for handle in opened:
            handle.close()
        raise
    return SceneReader(source=source, scene=scene, plan=plan, dataset=dataset, mask=mask, aoi=aoi)


def _open(path: str, *, where: str) -> Any:
    try:
        return open_raster(path)
    except GDAL_ERRORS as error:
        hint = advice(error, path, otherwise="check the path, and that it is a whole raster")
        raise RasterError(f"{where}: cannot be opened ({reason(error)}); {hint}") from None


def _describe(
    dataset: Any, source: SceneSource, bands: tuple[str, ...], *, max_pixels: int, where: str
) -> Scene:
    height, width = dataset.height, dataset.width
    if height * width > max_pixels:
        raise RasterError(
            f"{where}: {height} x {width} pixels are more than tile.max_pixels ({max_pixels}); "
            "cut it into several scenes or raise that limit"
        )
    place = locate(dataset, source.crs, where=where)
    return Scene(
        scene_id=source.scene_id,
        crs=place.crs,
        transform=place.transform,
        height=height,
        width=width,
        bands=bands,
        local=place.local,
    )


def _open_mask(path: str, scene: Scene, *, where: str) -> Any:
    where = f"{where}: mask {path}"
    mask = _open(path, where=where)
    bare = scene.local and mask.crs is None and mask.transform.is_identity
    fits = mask.shape == scene.shape if bare else same_grid(mask, scene)
    if not fits or (not scene.local and mask.crs is not None and mask.crs != scene.crs):
        shape = f"{mask.height} x {mask.width}"
        mask.close()
        raise RasterError(
            f"{where}: its grid ({shape}) is not the scene's ({scene.height} x {scene.width}, "
            "same CRS and transform); warp it onto the scene"
        )
    return mask


def _verify(path: str, expected: str, *, where: str) -> None:
    local = Path(path)
    if not local.is_file():  # remote, /vsi or missing: opening it says which
        return
    status = local.stat()
    found = _sha256(path, status.st_size, status.st_mtime_ns)
    if found != expected:
        raise RasterError(
            f"{where}: its sha256 is {found[:12]}..., the manifest says {expected[:12]}...; "
            "get the right file or correct the manifest"
        )


@lru_cache(maxsize=256)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """Hash of a file, kept while its size and time stay the same."""
    return file_sha256(Path(path))


class SceneReader:
    """Windows of one scene; a context manager. Handles do not travel: a worker opens its own.

    `pixel_bytes` counts what was read so far, as pixels (not as the file compresses them).
    """

    def __init__(
        self,
        *,
        source: SceneSource,
        scene: Scene,
        plan: BandPlan,
        dataset: Any,
        mask: Any,
        aoi: AreaOfInterest | None,
    ) -> None:
        self.source = source
        self.scene = scene
        self.pixel_bytes = 0
        self._plan = plan
        self._dataset = dataset
        self._mask = mask
        self._aoi = aoi

    @property
    def block_rows(self) -> int:
        """Rows of the blocks that the file is stored in."""
        return int(self._dataset.block_shapes[0][0])

    def read(self, window: Window) -> NDArray[np.float32]:
        """Pixels (band, row, col) in the manifest's band order; 0 where invalid or outside.

        Raises:
            RasterError: the file is damaged there.
        """
        return self.read_with_valid(window)[0]

    def valid(self, window: Window) -> NDArray[np.bool_]:
        """True where every band has a value and the pixel is inside mask and AOI (row, col).

        Reads pixels only where their values decide.

        Raises:
            RasterError: the file is damaged there.
        """
        inside, place = self._clip(window)
        valid = np.zeros((int(window.height), int(window.width)), dtype=np.bool_)
        if inside is None:
            return valid
        raw = alpha = None
        if self._plan.pixels_tell:
            raw, alpha = self._raw(inside)
        elif self._plan.alpha is not None:
            alpha = self._pixels([self._plan.alpha], inside)[0]
        valid[place] = self._validity(raw, alpha, inside)
        return valid

    def read_with_valid(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`read` and `valid` in one pass over the disk.

        Raises:
            RasterError: the file is damaged there.
        """
        shape = (int(window.height), int(window.width))
        pixels = np.zeros((len(self._plan.numbers), *shape), dtype=np.float32)
        valid = np.zeros(shape, dtype=np.bool_)
        inside, place = self._clip(window)
        if inside is not None:
            raw, alpha = self._raw(inside)
            good = self._validity(raw, alpha, inside)
            with np.errstate(over="ignore", invalid="ignore"):
                values = raw.astype(np.float32)
            if not good.all():
                values[:, ~good] = 0.0
            pixels[(slice(None), *place)] = values
            valid[place] = good
        return pixels, valid

    def fingerprint(self) -> str:
        """Text that changes when the image's bytes, size, header, mask or AOI change."""
        return fingerprint_of(self._dataset, self.source, plan=self._plan, aoi=self._aoi)

    def glance(self) -> str:
        """Text that changes when another image takes this one's place; reads next to nothing."""
        return glance_at(self._dataset, self.source, plan=self._plan, aoi=self._aoi)

    def close(self) -> None:
        """Give the file handles back; a second time does nothing."""
        self._dataset.close()
        if self._mask is not None:
            self._mask.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _clip(self, window: Window) -> tuple[Window | None, tuple[slice, slice]]:
        """The part of a window inside scene and AOI, and where it lies in the window."""
        row, col = int(window.row_off), int(window.col_off)
        top, left = max(row, 0), max(col, 0)
        bottom = min(row + int(window.height), self.scene.height)
        right = min(col + int(window.width), self.scene.width)
        inside: Window | None = None
        if bottom > top and right > left:
            inside = Window(left, top, right - left, bottom - top)
            if self._aoi is not None:
                inside = self._aoi.extent(inside)
        if inside is None:
            return None, (slice(0, 0), slice(0, 0))
        top, left = inside.row_off - row, inside.col_off - col
        return inside, (slice(top, top + inside.height), slice(left, left + inside.width))

    def _raw(self, inside: Window) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Bands as they are on disk, and the alpha band."""
        alpha = self._plan.alpha
        if alpha is None:
            return self._pixels(list(self._plan.numbers), inside), None
        stack = self._pixels([*self._plan.numbers, alpha], inside)
        return stack[:-1], stack[-1]

    def _pixels(self, numbers: list[int], inside: Window) -> NDArray[Any]:
        keys = {"window": inside, "out_dtype": self._plan.dtype}
        source = self._dataset
        alike = len({source.dtypes[number - 1] for number in numbers}) == 1
        stack: NDArray[Any] = self._guarded(
            lambda: (
                source.read(numbers, **keys)
                if alike  # rasterio reads bands of several types one by one only
                else np.stack([source.read(number, **keys) for number in numbers])
            )
        )
        self.pixel_bytes += stack.nbytes
        return stack

    def _validity(
        self, raw: NDArray[Any] | None, alpha: NDArray[Any] | None, inside: Window
    ) -> NDArray[np.bool_]:
        valid = np.ones((int(inside.height), int(inside.width)), dtype=np.bool_)
        if raw is not None:
            for band, nodata in zip(raw, self._plan.nodata, strict=True):
                if nodata is not None:
                    valid &= band != nodata
                if band.dtype.kind == "f":  # what float32 cannot hold is no value; NaN is False
                    valid &= np.abs(band) <= np.finfo(np.float32).max
        if alpha is not None:
            valid &= alpha > 0
        if self._plan.masked:
            numbers = list(self._plan.numbers)
            masks = self._guarded(lambda: self._dataset.read_masks(numbers, window=inside))
            valid &= (masks > 0).all(axis=0)
        if self._mask is not None:
            values = self._guarded(lambda: self._mask.read(1, window=inside, masked=True))
            valid &= values.filled(0) != 0
        if self._aoi is not None:
            valid &= self._aoi.inside(inside)
        return valid

    def _guarded(self, read: Any) -> Any:
        try:
            with environment(self.source.image):
                return read()
        except GDAL_ERRORS as error:
            image = self.source.image
            hint = "the file is damaged or incomplete: get it again"
            if is_remote(image):
                broken = "the connection broke or the file is damaged: run the same command later"
                hint = advice(error, image, otherwise=broken)
            raise RasterError(
                f"scene {self.scene.scene_id!r}: {image}: cannot be read ({reason(error)}); {hint}"
            ) from None
