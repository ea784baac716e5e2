"""Small stand-ins for benchmark datasets: their folders, names and codes, not their images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VAIHINGEN_COLORS = (
    (255, 255, 255),
    (0, 0, 255),
    (0, 255, 255),
    (0, 255, 0),
    (255, 255, 0),
    (255, 0, 0),
)
"""Impervious surfaces, building, low vegetation, tree, car, clutter."""

VAIHINGEN_TRAIN = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
VAIHINGEN_TEST = (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38)
SIDE = 32


def class_map(classes: int, *, offset: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    """Squares of 8 pixels (row, col) that go through all classes."""
    rows, cols = np.indices((side, side)) // 8
    return ((rows * (side // 8) + cols + offset) % classes).astype(np.uint8)


def picture(classes: NDArray[np.uint8], *, seed: int) -> NDArray[np.uint8]:
    """Three bands (row, col, band) that follow the classes."""
    noise = np.random.default_rng(seed).integers(0, 20, (*classes.shape, 3))
    return (classes[..., None] * 10 + noise + 1).astype(np.uint8)


def write(path: Path, array: NDArray[np.uint8]) -> Path:
    """An 8-bit image file, by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def vaihingen(root: Path, *, eroded: bool = False) -> Path:
    """All 33 areas, 32 x 32 pixels, without a CRS; every area has all six classes."""
    for area in (*VAIHINGEN_TRAIN, *VAIHINGEN_TEST):
        classes = class_map(6, offset=area)
        mask = np.array(VAIHINGEN_COLORS, dtype=np.uint8)[classes]
        name = f"top_mosaic_09cm_area{area}"
        write(root / "top" / f"{name}.tif", picture(classes, seed=area))
        write(root / f"{name}.tif", mask)
        if eroded and area in VAIHINGEN_TEST:
            mask[0::8] = 0
            write(root / f"{name}_noBoundary.tif", mask)
    return root


def loveda(root: Path) -> Path:
    """Two urban and two rural images each in Train and Val, value 0 in the first rows."""
    number = 0
    for split in ("Train", "Val"):
        for domain in ("Rural", "Urban"):
            for _ in range(2):
                classes = class_map(7, offset=number) + np.uint8(1)
                classes[:2] = 0
                folder = root / split / domain
                write(folder / "images_png" / f"{number + 9}.png", picture(classes, seed=number))
                write(folder / "masks_png" / f"{number + 9}.png", classes)
                number += 1
    return root


CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of the classes that are evaluated, by train id."""


def cityscapes(root: Path) -> Path:
    """Two cities in train, one in val; label ids with void (0, 4, 10) in the first rows."""
    for split, cities in (("train", ("bochum", "aachen")), ("val", ("lindau",))):
        for city in cities:
            for number in range(2):
                stem = f"{city}_000000_{number:06d}"
                classes = class_map(19, offset=number, side=64)
                ids = np.array(CITYSCAPES_IDS, dtype=np.uint8)[classes]
                ids[0], ids[1], ids[2] = 0, 4, 10
                images, masks = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
                write(images / f"{stem}_leftImg8bit.png", picture(classes, seed=number))
                write(masks / f"{stem}_gtFine_labelIds.png", ids)
                write(masks / f"{stem}_gtFine_color.png", picture(classes, seed=number))
    return root
