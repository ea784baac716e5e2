"""A queried round as QGIS gets it: review file, rasters and project, small and made up."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from review_factory import CLASSES, SIDE, Asked, make_asked

from geohsal.geo.scene import ClassInfo
from geohsal.io.cog import write_cog
from geohsal.io.qgis_project import write_project
from geohsal.io.run import Round
from geohsal.workflows.map_writer import open_maps

STRESS = tuple(
    ClassInfo(class_id=number, name=name, color=f"#{number:02x}{255 - number:02x}80")
    for number, name in enumerate(
        [
            'say "no" & <b>yes</b>',
            "Grünland 'süß'",
            "森林 🌲",
            "a\tb\nc",
            "[% 1/0 %]",
            *(f"class {number}" for number in range(5, 200)),
        ]
    )
)
"""200 classes, and what people may write as a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A round with its project; `picture` holds what each scene's view shows (band, row, col)."""

    asked: Asked
    round: Round
    project: Path
    picture: NDArray[np.uint8]

    @property
    def review(self) -> Path:
        return self.asked.path


def gradient() -> NDArray[np.uint8]:
    """Red grows to the right, green downwards, blue marks a checkerboard; rows 0 to 3: nodata."""
    row, col = np.mgrid[:SIDE, :SIDE]
    bands = np.stack([20 + 3 * col, 20 + 3 * row, 60 + 120 * ((row // 8 + col // 8) % 2)])
    bands[:, :4] = 0
    return bands.astype(np.uint8)


def make_project(
    folder: Path,
    grids: Sequence[str] = ("utm",),
    *,
    bands: int = 3,
    classes: Sequence[ClassInfo] = CLASSES,
    **provenance: object,
) -> Made:
    """Write a round over scenes named after their grids (see `make_asked`) and its project."""
    round_ = Round(index=0, run_dir=folder)
    asked = make_asked(round_.dir, grids, classes=classes, **provenance)
    picture = gradient()[:bands]
    for scene in asked.scenes.values():
        with open_maps(round_, scene, classes) as writer:
            writer.write(scene.extent, asked.maps[scene.scene_id])
        write_cog(
            round_.raster(scene.scene_id, "view"),
            picture,
            scene=scene,
            nodata=0,
            band_names=("red", "green", "blue")[:bands],
            overview_resampling="average",
        )
    project = write_project(asked.path, round_=round_, classes=classes)
    return Made(asked=asked, round=round_, project=project, picture=picture)
