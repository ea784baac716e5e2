"""Cityscapes: street scenes seen from a car, 19 classes: natural images, without a position."""

from pathlib import Path
from typing import Any

from torchvision.datasets import Cityscapes

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

SOURCE = (
    "https://www.cityscapes-dataset.com (leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip)"
)
LAYOUT = (
    "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png of train "
    "and val"
)
PUBLISHED = {"train": 2975, "val": 500}
_SPLITS: tuple[tuple[str, SplitName], ...] = (("train", "train"), ("val", "test"))
"""Its splits and ours. Its test labels are not public, so results are on its val images."""


def read_cityscapes(root: Path) -> Adapted:
    """The dataset as torchvision's `Cityscapes` finds it, fine annotations; no image is opened.

    Args:
        root: folder with `leftImg8bit/` and `gtFine/`.

    Raises:
        DataError: files are missing.
    """
    root = root.absolute()
    trained = _trained()
    scenes, counts = [], []
    for theirs, ours in _SPLITS:
        found = _scenes(root, theirs, ours)
        counts.append(count_line(f"{ours} ({theirs})", len(found), PUBLISHED[theirs]))
        scenes += found
    return Adapted(
        name="cityscapes",
        classes=tuple(
            ClassInfo(class_id=index, name=_name(entry), color=hex_color(entry.color))
            for index, entry in enumerate(trained)
        ),
        bands=("red", "green", "blue"),
        scenes=tuple(scenes),
        protocol=(
            "dataset: Cityscapes, fine annotations",
            *counts,
            "its test labels are not public: val is the test split, and nothing validates",
            f"classes: the {len(trained)} that are evaluated; all other label ids are ignored",
            "boundaries: full",
            WHOLE_SCENES,
            ONE_PASS,
            "areas are in pixels: the images have no position",
        ),
    )


def _trained() -> list[Any]:
    """Entries of the evaluated classes, in the order of their train ids."""
    kept = [entry for entry in Cityscapes.classes if not entry.ignore_in_eval]
    return sorted(kept, key=lambda entry: entry.train_id)


def _name(entry: Any) -> str:
    return str(entry.name).replace(" ", "_")


def _scenes(root: Path, theirs: str, ours: SplitName) -> list[SceneSource]:
    for folder in (root / "leftImg8bit" / theirs, root / "gtFine" / theirs):
        if not folder.is_dir():  # else torchvision would unpack archives here
            raise not_found(
                root, f"no folder {folder.relative_to(root)}", layout=LAYOUT, source=SOURCE
            )
    try:
        found = Cityscapes(str(root), split=theirs, mode="fine", target_type="semantic")
    except NotADirectoryError as error:
        raise not_found(
            root, f"{error.filename} is no folder of a city", layout=LAYOUT, source=SOURCE
        ) from None
    pairs = sorted(
        (Path(image), Path(masks[0]))
        for image, masks in zip(found.images, found.targets, strict=True)
    )
    missing = missing_files([mask for _, mask in pairs])
    if missing or not pairs:
        raise not_found(root, missing or f"no {theirs} images", layout=LAYOUT, source=SOURCE)
    values: dict[LabelValue, str] = {entry.id: _name(entry) for entry in _trained()}
    ignored = [entry.id for entry in Cityscapes.classes if entry.ignore_in_eval and entry.id >= 0]
    return [
        SceneSource(
            scene_id=image.stem.removesuffix("_leftImg8bit"),
            image=str(image),
            truth=LabelSource(path=str(mask), values=values, ignore=tuple(ignored)),
            split=ours,
            crs="local",
        )
        for image, mask in pairs
    ]
