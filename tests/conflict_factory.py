"""Two people who answer the same regions differently, and the file that shows where."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from review_factory import CLASSES, Asked, make_asked, person, tick

from geohsal.io.conflict_file import write_conflicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    """A conflicts file and the round it belongs to."""

    path: Path
    asked: Asked


def make_conflicts(folder: Path, grid: str = "utm") -> Conflicts:
    """Everything is done twice: as suggested, and with class 2 everywhere."""
    asked = make_asked(folder, [grid])
    other = folder / "second.gpkg"
    shutil.copy(asked.path, other)
    for path in (asked.path, other):
        tick(path)
    with person(other, "answers") as frame:
        frame["assigned_class"] = 2
    regions = [item for item in asked.read(asked.path, other).regions if item.conflict.any()]
    path = folder / "conflicts_r000.gpkg"
    write_conflicts(
        path,
        regions,
        scenes=asked.scenes,
        classes=CLASSES,
        provenance={"run": "town", "round": 0},
    )
    return Conflicts(path=path, asked=asked)
