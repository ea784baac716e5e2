"""LoveDA: satellite images of three Chinese cities, urban and rural, seven classes, 0.3 m."""

from pathlib import Path
from typing import Literal

from torchgeo.datasets import DatasetNotFoundError, LoveDA

from geohsal.data.adapters import (
    ONE_PASS,
    WHOLE_SCENES,
    Adapted,
    count_line,
    hex_color,
    missing_files,
    not_found,
)
from geohsal.geo.scene import ClassInfo
from geohsal.io.manifest import LabelSource, LabelValue, SceneSource, SplitName

Domain = Literal["both", "urban", "rural"]

SOURCE = "https://zenodo.org/records/5706578 (Train.zip and Val.zip)"
LAYOUT = "Train/Urban, Train/Rural, Val/Urban and Val/Rural, each with images_png/ and masks_png/"
NO_DATA: LabelValue = 0
"""Mask value of pixels outside the images; classes are numbered from 1."""

COLORS = {
    "background": (255, 255, 255),
    "building": (255, 0, 0),
    "road": (255, 255, 0),
    "water": (0, 0, 255),
    "barren": (159, 129, 183),
    "forest": (0, 255, 0),
    "agriculture": (255, 195, 128),
}
"""Classes in the order of their mask values, in the colours in which they are mostly drawn."""

PUBLISHED = {
    ("train", "urban"): 1156,
    ("train", "rural"): 1366,
    ("val", "urban"): 677,
    ("val", "rural"): 992,
}
"""Images of the published dataset."""

_SPLITS: tuple[tuple[Literal["train", "val"], SplitName], ...] = (
    ("train", "train"),
    ("val", "test"),
)
"""Its splits and ours. Its test masks are not public, so results are on its val images."""


def read_loveda(root: Path, *, domain: Domain = "both") -> Adapted:
    """The dataset as torchgeo's `LoveDA` finds it; no image is opened.

    Args:
        root: folder with `Train/` and `Val/`.
        domain: urban or rural scenes alone, or both.

    Raises:
        DataError: files are missing.
    """
    root = root.absolute()
    domains = ("urban", "rural") if domain == "both" else (domain,)
    scenes, counts = [], []
    for theirs, ours in _SPLITS:
        found = _scenes(root, theirs, ours, domains)
        published = sum(PUBLISHED[theirs, name] for name in domains)
        counts.append(count_line(f"{ours} ({theirs.capitalize()})", len(found), published))
        scenes += found
    return Adapted(
        name="loveda" if domain == "both" else f"loveda-{domain}",
        classes=tuple(
            ClassInfo(class_id=index, name=name, color=hex_color(color))
            for index, (name, color) in enumerate(COLORS.items())
        ),
        bands=("red", "green", "blue"),
        scenes=tuple(scenes),
        protocol=(
            f"dataset: LoveDA, {' and '.join(domains)} scenes",
            *counts,
            "its test masks are not public: Val is the test split, and nothing validates",
            "classes: 7, background is one of them; value 0 (no data) is ignored",
            "boundaries: full",
            WHOLE_SCENES,
            ONE_PASS,
        ),
    )


def _scenes(
    root: Path, theirs: Literal["train", "val"], ours: SplitName, domains: tuple[str, ...]
) -> list[SceneSource]:
    try:
        files = LoveDA(
            str(root), split=theirs, scene=list(domains), download=False, checksum=False
        ).files
    except DatasetNotFoundError:
        raise not_found(
            root,
            f"no {theirs} images of {' and '.join(domains)} scenes",
            layout=LAYOUT,
            source=SOURCE,
        ) from None
    missing = missing_files([Path(pair["mask"]) for pair in files])
    if missing or not files:
        raise not_found(root, missing or f"no {theirs} images", layout=LAYOUT, source=SOURCE)
    values: dict[LabelValue, str] = dict(enumerate(COLORS, start=1))
    return [
        SceneSource(
            scene_id=_scene_id(Path(pair["image"])),
            image=str(pair["image"]),
            truth=LabelSource(path=str(pair["mask"]), values=values, ignore=(NO_DATA,)),
            split=ours,
            crs="local",
        )
        for pair in sorted(files, key=lambda pair: _order(Path(pair["image"])))
    ]


def _scene_id(image: Path) -> str:
    """`train_urban_1366` for Train/Urban/images_png/1366.png."""
    domain = image.parents[1]
    return f"{domain.parent.name}_{domain.name}_{image.stem}".lower()


def _order(image: Path) -> tuple[str, int, str]:
    """Scenes by domain, then by number."""
    return image.parents[1].name, len(image.stem), image.stem
