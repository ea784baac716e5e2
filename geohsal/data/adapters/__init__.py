"""Benchmark datasets as manifests; torchgeo's and torchvision's own classes find the files.

An adapter opens no more than it must, downloads and unpacks nothing, and says which protocol its
manifest stands for: results on the same images differ by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geohsal.errors import DataError
from geohsal.geo.scene import ClassInfo
from geohsal.io.manifest import SceneSource

WHOLE_SCENES = (
    "crop: none, scenes are mapped whole in overlapping windows; training crops are train.crop_px"
)
"""A line of every protocol: nothing is cut into patches beforehand."""

ONE_PASS = "test time: one pass, no flips or scales"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """What a manifest says of a dataset, and the lines that belong to every result on it.

    Paths in `scenes` are absolute.
    """

    name: str
    classes: tuple[ClassInfo, ...]
    bands: tuple[str, ...]
    scenes: tuple[SceneSource, ...]
    protocol: tuple[str, ...]

    def per_split(self) -> dict[str, int]:
        """Number of scenes per split that has any."""
        splits = [scene.split for scene in self.scenes]
        return {name: splits.count(name) for name in ("train", "val", "test") if name in splits}


def hex_color(rgb: Sequence[int]) -> str:
    """A colour of three numbers from 0 to 255, as #rrggbb."""
    red, green, blue = rgb
    return f"#{red:02x}{green:02x}{blue:02x}"


def not_found(root: Path, missing: str, *, layout: str, source: str) -> DataError:
    """The one line that says what is missing, how the files must lie and where they come from."""
    return DataError(f"{root}: {missing}; expected are {layout}, unpacked, from {source}")


def missing_files(paths: Sequence[Path]) -> str | None:
    """`no x.tif` or `no x.tif and 3 more`; None where all files are there."""
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return None
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"no {missing[0]}{more}"


def count_line(split: str, found: int, published: int) -> str:
    """How many scenes a split has, and whether that is all of them."""
    part = "" if found == published else f" of the {published:,} published: a part of the dataset"
    return f"{split}: {found:,} scenes{part}"
