"""How the scenes of a run are cut into regions; superpixels are made once and kept."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import QueryConfig
from geohsal.data.sources import SceneCrops
from geohsal.geo.patches import slices
from geohsal.io.superpixel_raster import read_superpixels, write_superpixels
from geohsal.query.layout import Layout, atom_px, grid_atoms, grid_layout, window_layout
from geohsal.query.superpixels import superpixel_layout, superpixels
from geohsal.workflows.context import RunContext
from geohsal.workflows.progress import Progress


def superpixel_rasters(
    context: RunContext, scene_ids: Collection[str], progress: Progress
) -> Mapping[str, Path]:
    """Where the superpixels of scenes lie; makes what is missing. Empty for other units.

    A raster is named by what it is made of: a run that is tiled anew makes new ones. While it is
    made its scene is in memory whole, with 4 bytes a pixel.
    """
    if context.config.query.region_unit != "superpixel":
        return {}
    paths = {scene_id: _path(context, scene_id) for scene_id in scene_ids}
    missing = [scene_id for scene_id, path in paths.items() if not path.exists()]
    if missing:
        progress.start("superpixels", sum(len(cores(context, name)) for name in missing))
        for scene_id in missing:
            with context.open(scene_id) as source:
                numbers = _numbers(context, source, progress)
            write_superpixels(paths[scene_id], numbers, scene=context.scenes[scene_id])
        progress.done()
    return paths


def layout_of(context: RunContext, scene_id: str, rasters: Mapping[str, Path]) -> Layout:
    """The regions of a scene; `rasters` as `superpixel_rasters` gives them.

    The raster of superpixels is read whole: 4 bytes a pixel.
    """
    config, shape = context.config.query, context.scenes[scene_id].shape
    if config.region_unit == "superpixel":
        return superpixel_layout(
            read_superpixels(rasters[scene_id]),
            cores(context, scene_id),
            region_px=config.region_px,
        )
    make = grid_layout if config.region_unit == "grid" else window_layout
    return make(shape, region_px=config.region_px)


def atoms_of(
    config: QueryConfig, window: Window, *, scene_width: int, superpixels: Path | None
) -> NDArray[np.int32]:
    """Atom (row, col) of each pixel of a window, -1 where there is none.

    `superpixels` is the raster of the scene where the unit is superpixel.
    """
    if superpixels is not None:
        return read_superpixels(superpixels, window) - np.int32(1)
    return grid_atoms(
        int(window.row_off),
        int(window.col_off),
        shape=(int(window.height), int(window.width)),
        side=atom_px(config.region_unit, config.region_px),
        scene_width=scene_width,
    )


def cores(context: RunContext, scene_id: str) -> list[Window]:
    """Tile cores of a scene, row by row."""
    found = [tile.core for tile in context.tiles[scene_id]]
    return sorted(found, key=lambda core: (core.row_off, core.col_off))


def _path(context: RunContext, scene_id: str) -> Path:
    side = context.config.query.region_px
    made_of = [context.record.scenes[scene_id].fingerprint, side, context.record.core_px]
    digest = hashlib.sha256(repr([*made_of, context.scale]).encode()).hexdigest()[:12]
    return context.run.path / "regions" / f"{scene_id}_s{side}_{digest}.tif"


def _numbers(context: RunContext, source: SceneCrops, progress: Progress) -> NDArray[np.int32]:
    """Superpixels of a scene, core by core, numbered on."""
    numbers, last = np.zeros(source.scene.shape, dtype=np.int32), 0
    for core in cores(context, source.scene.scene_id):
        image, valid = source.read(core)
        own = superpixels(
            context.scale.apply(image, valid), valid, region_px=context.config.query.region_px
        )
        numbers[slices(core)] = np.where(own > 0, own + last, 0)
        last += int(own.max(initial=0))
        progress.advance()
    return numbers
