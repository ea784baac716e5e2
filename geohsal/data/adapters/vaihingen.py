"""ISPRS Vaihingen: 33 aerial images of a town, six classes, 9 cm, near infrared, red and green."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchgeo.datasets import Vaihingen2D

from geohsal.data.adapters import (
    ONE_PASS,
    WHOLE_SCENES,
    Adapted,
    hex_color,
    missing_files,
    not_found,
)
from geohsal.errors import RasterError
from geohsal.geo.scene import ClassInfo
from geohsal.io.gdal import GDAL_ERRORS, open_raster, reason
from geohsal.io.manifest import LabelSource, LabelValue, SceneSource, SplitName

Boundaries = Literal["full", "eroded"]
VaihingenSplit = Literal["isprs", "isprs-val"]

VAL_AREAS = frozenset({11, 15, 28, 30, 34})
"""Train areas that `isprs-val` sets apart, as much of the literature does.

They have truth but no labels: labels there would choose checkpoints without being paid for.
"""

BANDS = {"nir": 1, "red": 2, "green": 3}
CLUTTER = "clutter"
BOUNDARY: LabelValue = (0, 0, 0)
"""Colour of the pixels within 3 px of a border in eroded masks: not evaluated."""

SOURCE = (
    "https://www.isprs.org/resources/datasets/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx"
)
LAYOUT = (
    "top/top_mosaic_09cm_area1.tif and the rest, and the ground truth top_mosaic_09cm_area1.tif "
    "and the rest beside top/"
)
ERODED_ZIP = "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Area:
    """One image with its mask."""

    number: int
    image: Path
    mask: Path


def read_vaihingen(
    root: Path,
    *,
    num_classes: Literal[5, 6] = 5,
    boundaries: Boundaries = "full",
    split: VaihingenSplit = "isprs-val",
) -> Adapted:
    """The dataset as torchgeo's `Vaihingen2D` finds it.

    Args:
        root: folder with `top/` and the masks.
        num_classes: 5: clutter is ignored; 6: clutter is a class.
        boundaries: masks of the test scenes; eroded ones leave out what lies near a border. The
            other scenes always have full ones: reviewers are asked about borders as well.
        split: isprs: 16 train and 17 test; isprs-val: 5 of the 16 are set apart.

    Raises:
        DataError: files are missing.
        RasterError: an image cannot be opened.
    """
    root = root.absolute()
    train, test = _areas(root, "train"), _areas(root, "test")
    val = [area for area in train if split == "isprs-val" and area.number in VAL_AREAS]
    train = [area for area in train if area not in val]
    test_masks = _eroded(root, test) if boundaries == "eroded" else [area.mask for area in test]
    values, clutter = _values(num_classes)
    full = [(area, area.mask) for area in (*train, *val)]
    splits: dict[int, SplitName] = dict.fromkeys((area.number for area in test), "test")
    splits |= dict.fromkeys((area.number for area in val), "val")
    scenes = [
        SceneSource(
            scene_id=f"area{area.number}",
            image=str(area.image),
            bands=BANDS,
            truth=LabelSource(path=str(mask), values=dict(values), ignore=_ignored(mask, clutter)),
            split=splits.get(area.number, "train"),
            crs=_crs(area.image),
        )
        for area, mask in (*full, *zip(test, test_masks, strict=True))
    ]
    return Adapted(
        name="vaihingen",
        classes=_classes(num_classes),
        bands=tuple(BANDS),
        scenes=tuple(scenes),
        protocol=(
            f"dataset: ISPRS Vaihingen 2D, split {split}",
            _tiles("train", train),
            *([f"{_tiles('val', val)}; without labels: the last checkpoint counts"] if val else []),
            _tiles("test", test),
            "classes: 5, clutter is ignored" if num_classes == 5 else "classes: 6, with clutter",
            f"boundaries: {boundaries} masks on test, full ones elsewhere",
            WHOLE_SCENES,
            ONE_PASS,
        ),
    )


def _areas(root: Path, split: str) -> list[_Area]:
    """The areas of one of torchgeo's splits, by number; each of its files must be there."""
    if not (root / Vaihingen2D.image_root).is_dir():  # else torchgeo would unpack archives here
        raise not_found(root, "no folder top", layout=LAYOUT, source=SOURCE)
    found = Vaihingen2D(str(root), split=split, checksum=False).files
    areas = [
        _Area(
            number=_number(Path(files["image"])),
            image=Path(files["image"]),
            mask=Path(files["mask"]),
        )
        for files in found
    ]
    names = Vaihingen2D.splits[split]
    if len(areas) < len(names):
        pairs = [root / folder / name for name in names for folder in (Vaihingen2D.image_root, "")]
        raise not_found(root, missing_files(pairs) or "", layout=LAYOUT, source=SOURCE)
    return sorted(areas, key=lambda area: area.number)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("area")[2])


def _eroded(root: Path, areas: Sequence[_Area]) -> list[Path]:
    """Eroded masks of the areas, beside the full ones or in a folder named like their archive."""
    folder = root / ERODED_ZIP if (root / ERODED_ZIP).is_dir() else root
    masks = [folder / f"{area.mask.stem}_noBoundary.tif" for area in areas]
    missing = missing_files(masks)
    if missing:
        layout = "top_mosaic_09cm_area2_noBoundary.tif and the rest beside top/"
        raise not_found(root, missing, layout=layout, source=f"{ERODED_ZIP}.zip, {SOURCE}")
    return masks


def _named_colors() -> dict[str, tuple[int, int, int]]:
    """Classes of `Vaihingen2D` in the manifest's words, clutter last."""
    pairs = zip(Vaihingen2D.classes, Vaihingen2D.colormap, strict=True)
    named = {name.lower().partition("/")[0].replace(" ", "_"): color for name, color in pairs}
    clutter = named.pop(CLUTTER)
    return {**named, CLUTTER: clutter}


def _classes(num_classes: int) -> tuple[ClassInfo, ...]:
    pairs = list(_named_colors().items())[:num_classes]
    return tuple(
        ClassInfo(class_id=index, name=name, color=hex_color(color))
        for index, (name, color) in enumerate(pairs)
    )


def _values(num_classes: int) -> tuple[Mapping[LabelValue, str], tuple[LabelValue, ...]]:
    """What mask colours mean, and the colours that mean nothing."""
    pairs = list(_named_colors().items())
    kept: dict[LabelValue, str] = {color: name for name, color in pairs[:num_classes]}
    return kept, tuple(color for _, color in pairs[num_classes:])


def _ignored(mask: Path, clutter: tuple[LabelValue, ...]) -> tuple[LabelValue, ...]:
    return (*clutter, BOUNDARY) if mask.stem.endswith("_noBoundary") else clutter


def _crs(image: Path) -> str | None:
    """`local` where the file itself has no CRS."""
    try:
        with open_raster(str(image)) as dataset:
            return None if dataset.crs else "local"
    except GDAL_ERRORS as error:
        raise RasterError(
            f"{image}: cannot be opened ({reason(error)}); unpack it from its archive again"
        ) from None


def _tiles(split: str, areas: Sequence[_Area]) -> str:
    return f"{split}: {len(areas)} scenes, areas {', '.join(str(area.number) for area in areas)}"
