"""What a sensor would see of a synthetic layout, and polygons that a person might draw in it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import Polygon

from geohsal.geo.landscape import MATERIALS, Layout, make_layout, smooth_noise

BANDS = ("blue", "green", "red", "nir")
NODATA = 0
HAZE = (80.0, 50.0, 35.0, 15.0)
"""Largest additive haze per band (reflectance x 10 000): it tells one scene from another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """A synthetic scene: `image` uint16 (band, row, col), 0 where nothing was seen.

    `truth` (row, col) holds a class id everywhere, also under clouds and outside the border.
    """

    image: NDArray[np.uint16]
    truth: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    objects: NDArray[np.int32]


def make_landscape(height: int, width: int, *, rng: np.random.Generator) -> Landscape:
    """A random synthetic scene; the same generator state gives the same scene."""
    layout = make_layout(height, width, rng=rng)
    image = render(layout, rng=rng)
    valid = _seen((height, width), rng=rng)
    image[:, ~valid] = NODATA
    return Landscape(image=image, truth=layout.truth, valid=valid, objects=layout.objects)


def render(layout: Layout, *, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Image of a layout: material and object spectra, texture, light, haze, blur, noise."""
    shape = layout.material.shape
    spectra = np.array([material.spectrum for material in MATERIALS], np.float32)
    vary = np.array([material.vary for material in MATERIALS], np.float32)
    count = int(layout.objects.max()) + 1
    brightness = rng.standard_normal((count, 1)) + 0.3 * rng.standard_normal((count, len(BANDS)))
    deviation = vary[layout.material][..., None] * brightness[layout.objects]
    light = _texture(layout, rng=rng) * layout.shade * _illumination(shape, rng=rng)
    image = spectra[layout.material] * np.exp(deviation) * light[..., None]
    image = np.moveaxis(image, -1, 0)
    gain = rng.normal(1.0, 0.025, (len(BANDS), 1, 1))
    haze = np.array(HAZE)[:, None, None] * rng.uniform(0, 1)
    seen = ndimage.gaussian_filter(image * gain + haze, (0, 0.6, 0.6))
    seen += rng.standard_normal(seen.shape) * (15 + 0.015 * seen)
    clipped: NDArray[np.uint16] = np.clip(np.rint(seen), 1, 10_000).astype(np.uint16)
    return clipped


def _texture(layout: Layout, *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Relative brightness: rows of crops and panels, patches of meadows, grain of crowns."""
    shape = layout.material.shape
    rows, mottle, speckle = (
        np.array([getattr(material, name) for material in MATERIALS], np.float32)[layout.material]
        for name in ("rows", "mottle", "speckle")
    )
    count = int(layout.objects.max()) + 1
    angle = rng.choice([0.0, np.pi / 2], count) + rng.normal(0, 0.06, count)
    period, phase = rng.uniform(3.2, 5.5, count), rng.uniform(0, 2 * np.pi, count)
    turn = angle[layout.objects]
    u, v = layout.frame
    offset = u * np.cos(turn) + v * np.sin(turn)
    wave = np.cos(2 * np.pi * offset / period[layout.objects] + phase[layout.objects])
    patches = 0.7 * smooth_noise(shape, 7.0, rng=rng) + 0.7 * smooth_noise(shape, 2.5, rng=rng)
    crowns = smooth_noise(shape, 1.4, rng=rng)
    grain = 0.75 * crowns + 0.9 * (crowns - np.roll(crowns, (2, 2), (0, 1)))  # lit from one side
    relative = np.exp(rows * wave + mottle * patches + speckle * 0.75 * grain)
    return np.asarray(relative, np.float32)


def _illumination(shape: tuple[int, ...], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """A slope of light across the scene and soft patches of it, within about 8 per cent."""
    height, width = shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    angle = rng.uniform(0, 2 * np.pi)
    slope = 0.05 * (np.cos(angle) * x + np.sin(angle) * y)
    patches = 0.02 * smooth_noise((height, width), max(shape) / 8, rng=rng)
    return np.asarray(1 + slope + patches, np.float32)


def _seen(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.bool_]:
    """False outside the slightly turned swath and under two or three clouds."""
    height, width = shape
    rows, cols = np.indices(shape, np.float64)
    y, x = rows - height / 2 + 0.5, cols - width / 2 + 0.5
    angle = rng.choice([-1, 1]) * rng.uniform(0.05, 0.09)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    seen = (np.abs(u) < 0.49 * width) & (np.abs(v) < 0.485 * height)
    ragged = 1 + 0.3 * smooth_noise(shape, 9.0, rng=rng)
    for _ in range(int(rng.integers(2, 4))):
        row, col = rng.uniform(0.1, 0.9, 2) * shape
        radius = rng.uniform(0.03, 0.05) * max(shape)
        seen &= np.hypot((rows - row) * 1.3, cols - col) > radius * ragged
    return np.asarray(seen)


def training_polygons(
    landscape: Landscape, counts: Mapping[int, int], *, rng: np.random.Generator
) -> list[tuple[int, Polygon]]:
    """Polygons in (x, y) pixel coordinates, each well inside one object of its class.

    `counts` maps class id to the number of polygons; objects are not used twice while others are
    left, and fewer polygons come back where a class has no more room.
    """
    same = _interior(landscape)
    drawn: list[tuple[int, Polygon]] = []
    for class_id, count in sorted(counts.items()):
        depth = np.where(landscape.truth == class_id, same, 0.0)
        for _ in range(count):
            rows, cols = np.nonzero(depth >= min(8.0, 0.75 * float(depth.max())))
            if depth.max() < 2.5:
                break
            pick = int(rng.integers(len(rows)))
            row, col = int(rows[pick]), int(cols[pick])
            radius = min(float(depth[row, col]) - 1.0, rng.uniform(6.0, 10.0))
            drawn.append((class_id, _blob(col + 0.5, row + 0.5, radius, rng=rng)))
            used = landscape.objects == landscape.objects[row, col]
            if (np.where(used, 0.0, depth)).max() >= 2.5:
                depth[used] = 0.0
            else:
                depth[max(row - 24, 0) : row + 24, max(col - 24, 0) : col + 24] = 0.0
    return drawn


def _interior(landscape: Landscape) -> NDArray[np.float64]:
    """Distance in pixels of every valid pixel to the nearest pixel of another object."""
    objects = np.where(landscape.valid, landscape.objects, -1)
    edge = np.zeros(objects.shape, bool)
    for axis in (0, 1):
        differs = np.diff(objects, axis=axis) != 0
        low = [slice(None), slice(None)]
        high = [slice(None), slice(None)]
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        edge[tuple(low)] |= differs
        edge[tuple(high)] |= differs
    distance = ndimage.distance_transform_edt(np.pad(~edge, 1))[1:-1, 1:-1]
    return np.where(landscape.valid, distance, 0.0)


def _blob(x: float, y: float, radius: float, *, rng: np.random.Generator) -> Polygon:
    """A polygon of six to eight corners inside a circle."""
    corners = int(rng.integers(6, 9))
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / corners
    reach = radius * rng.uniform(0.75, 1.0, corners)
    return Polygon(zip(x + reach * np.cos(angles), y + reach * np.sin(angles), strict=True))
