"""One scene of a tile run: its tiles, splits, labels and band moments, window by window."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import TileConfig
from geohsal.errors import LabelError, RasterError
from geohsal.geo.blocks import SplitTable, assign_blocks, split_table
from geohsal.geo.moments import BandMoments
from geohsal.geo.scene import ClassInfo, Scene, Tile
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.geo.tiling import make_tiles
from geohsal.io.label_store import (
    FIRST_ANSWER_REGION,
    LabelArrays,
    empty_labels,
    write_label_raster,
)
from geohsal.io.labels import read_labels
from geohsal.io.ledger import LedgerEntry, replay
from geohsal.io.manifest import Blocks, SceneSource
from geohsal.io.raster import SceneReader, open_scene
from geohsal.io.run import Run
from geohsal.io.run_tables import SceneRecord, heldout_labels, labels_digest
from geohsal.io.tile_image import write_tile_image
from geohsal.workflows.progress import Progress

_STRIPE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTask:
    """What `scan_scene` needs; plain values, so that it travels to a worker process.

    `entries` are the ledger's entries of this scene. `stage` is a folder laid out like a run that
    takes the rasters; None: look only.
    """

    source: SceneSource
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    blocks: Blocks
    tile: TileConfig
    region_px: int
    entries: tuple[LedgerEntry, ...] = ()
    stage: Path | None = None
    patches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneScan:
    """What one scene gave."""

    record: SceneRecord
    tiles: tuple[Tile, ...]


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What grows while the tiles of a scene are read."""

    moments: BandMoments
    kept: list[Tile] = field(default_factory=list)
    splits: Counter[Split] = field(default_factory=Counter)
    dropped: int = 0
    invalid: int = 0


def scan_scene(task: SceneTask, progress: Progress) -> SceneScan:
    """Check one scene and its labels, cut it into tiles, and write its label rasters to the stage.

    Raises:
        RasterError: the image is missing, unreadable, does not fit, or has no valid pixel.
        GeoreferenceError: it lies nowhere.
        LabelError: its labels are missing, unreadable or do not fit.
    """
    source = task.source
    with open_scene(source, task.bands, max_pixels=task.tile.max_pixels) as reader:
        scene = reader.scene
        labels, issues = _manifest_labels(task, scene)
        heldout = empty_labels(scene.shape) if _holds_back(source) else None
        sizes = task.tile
        tiles = scene_tiles(
            task.source, scene, task.blocks, core_px=sizes.core_px, overlap_px=sizes.overlap_px
        )
        table = scene_splits(task.source, task.blocks, tiles, reader)
        tally = _Tally(moments=BandMoments.empty(len(task.bands)))
        progress.start(f"scene {source.scene_id}", len(tiles))
        for tile in tiles:
            _scan_tile(task, tile, reader, table=table, labels=labels, heldout=heldout, tally=tally)
            progress.advance()
        progress.done()
        fingerprint = reader.fingerprint()
    if not tally.kept:
        raise RasterError(
            f"scene {source.scene_id!r}: {source.image}: no valid pixel; check nodata, mask and aoi"
        )
    _write_labels(task, scene, labels=labels, heldout=heldout)
    record = _record(
        task, scene, labels=labels, tally=tally, issues=issues, fingerprint=fingerprint
    )
    return SceneScan(record=record, tiles=tuple(tally.kept))


def _manifest_labels(task: SceneTask, scene: Scene) -> tuple[LabelArrays, tuple[str, ...]]:
    if task.source.labels is None:
        return _unlabelled(scene), ()
    where = f"scene {scene.scene_id!r}: labels"
    found = read_labels(
        task.source.labels, scene, task.classes, region_px=task.region_px, where=where
    )
    if found.regions.max(initial=0) >= FIRST_ANSWER_REGION:
        raise LabelError(
            f"{where}: more than {FIRST_ANSWER_REGION - 1} labelled regions; cut the scene up or "
            "raise query.region_px"
        )
    rounds = _unlabelled(scene).rounds
    return LabelArrays(classes=found.classes, regions=found.regions, rounds=rounds), found.issues


def _unlabelled(scene: Scene) -> LabelArrays:
    """Nothing labelled, in arrays that take no memory and cannot be written to."""
    one = empty_labels((1, 1))
    return LabelArrays(
        classes=np.broadcast_to(one.classes, scene.shape),
        regions=np.broadcast_to(one.regions, scene.shape),
        rounds=np.broadcast_to(one.rounds, scene.shape),
    )


def _holds_back(source: SceneSource) -> bool:
    return source.labels is not None and source.split != "train"


def scene_tiles(
    source: SceneSource, scene: Scene, blocks: Blocks, *, core_px: int, overlap_px: int
) -> list[Tile]:
    """Tiles of a scene with their splits."""
    return make_tiles(
        scene,
        core_px=core_px,
        overlap_px=overlap_px,
        splits=source.split
        if source.split != "blocks"
        else assign_blocks(
            scene.height,
            scene.width,
            size_px=blocks.size_px,
            shares=blocks.shares,
            seed=blocks.seed,
            scene_id=scene.scene_id,
        ),
    )


def buffer_of(source: SceneSource, blocks: Blocks) -> int:
    """Pixels between the splits of a scene: 0 where it is one split."""
    return blocks.buffer_px if source.split == "blocks" else 0


def scene_splits(
    source: SceneSource, blocks: Blocks, tiles: Sequence[Tile], reader: SceneReader
) -> SplitTable:
    """Splits as the tile index will give them later: tiles without a valid pixel are not in it."""
    buffer_px = buffer_of(source, blocks)
    if buffer_px:
        tiles = [tile for tile in tiles if tile.split == "train" or reader.valid(tile.core).any()]
    return split_table(tiles, buffer_px=buffer_px)


def _scan_tile(
    task: SceneTask,
    tile: Tile,
    reader: SceneReader,
    *,
    table: SplitTable,
    labels: LabelArrays,
    heldout: LabelArrays | None,
    tally: _Tally,
) -> None:
    """Count one tile and gather its train pixels."""
    area = _slices(tile.core)
    pixels, valid = _read(task, tile, reader)
    codes = table.read(tile.core)
    train = valid & (codes == Split.TRAIN)
    labelled = _sort_labels(area, valid, codes, labels=labels, heldout=heldout, tally=tally)
    count = int(valid.sum())
    if not count:
        return
    for code in Split:
        tally.splits[code] += int((valid & (codes == code)).sum())
    tally.moments = tally.moments.merge(BandMoments.of(pixels[:, train]))
    tally.kept.append(
        replace(
            tile,
            valid_share=count / valid.size,
            labelled_share=labelled / count,
        )
    )


def _sort_labels(
    area: tuple[slice, slice],
    valid: NDArray[np.bool_],
    codes: NDArray[np.uint8],
    *,
    labels: LabelArrays,
    heldout: LabelArrays | None,
    tally: _Tally,
) -> int:
    """Keep the labels of valid train pixels, move those of val and test; how many were kept."""
    classes, regions = labels.classes[area], labels.regions[area]
    labelled = classes != IGNORE_INDEX
    if not labelled.any():
        return 0
    train = valid & (codes == Split.TRAIN)
    away = labelled & valid & ~train
    tally.invalid += int((labelled & ~valid).sum())
    tally.dropped += int(away.sum())
    if heldout is not None:
        apart = away & (codes != Split.BUFFER)
        heldout.classes[area][apart] = classes[apart]
        heldout.regions[area][apart] = regions[apart]
    classes[~train] = IGNORE_INDEX
    regions[~train] = 0
    return int((labelled & train).sum())


def _read(
    task: SceneTask, tile: Tile, reader: SceneReader
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pixels and validity of the core; with `--patches` the whole window goes to a file."""
    if not task.patches or task.stage is None:
        return reader.read_with_valid(tile.core)
    pixels, valid = reader.read_with_valid(tile.window)
    top = tile.core.row_off - tile.window.row_off
    left = tile.core.col_off - tile.window.col_off
    core = (slice(top, top + tile.core.height), slice(left, left + tile.core.width))
    if valid[core].any():
        path = task.stage / "patches" / f"{tile.tile_id}.tif"
        write_tile_image(path, pixels, valid, scene=reader.scene, window=tile.window)
    return pixels[(slice(None), *core)], valid[core]


def _slices(window: Window) -> tuple[slice, slice]:
    return (
        slice(window.row_off, window.row_off + window.height),
        slice(window.col_off, window.col_off + window.width),
    )


def _write_labels(
    task: SceneTask, scene: Scene, *, labels: LabelArrays, heldout: LabelArrays | None
) -> None:
    if task.stage is None:
        return
    stage = Run(path=task.stage)
    base, current = stage.base_labels(scene.scene_id), stage.labels(scene.scene_id)
    _write(base, labels, scene)
    if task.entries:
        _write(current, replay(labels, task.entries), scene)
    else:
        shutil.copyfile(base, current)
    if heldout is not None and (heldout.classes != IGNORE_INDEX).any():
        _write(heldout_labels(stage, scene.scene_id), heldout, scene)


def _write(path: Path, labels: LabelArrays, scene: Scene) -> None:
    write_label_raster(path, labels.classes, labels.regions, labels.rounds, scene=scene)


def _record(
    task: SceneTask,
    scene: Scene,
    *,
    labels: LabelArrays,
    tally: _Tally,
    issues: tuple[str, ...],
    fingerprint: str,
) -> SceneRecord:
    pixels, regions = _per_class(labels, task.classes)
    grid = scene.transform
    return SceneRecord(
        scene_id=scene.scene_id,
        height=scene.height,
        width=scene.width,
        crs_wkt=None if scene.crs is None else scene.crs.to_wkt(),
        transform=(grid.a, grid.b, grid.c, grid.d, grid.e, grid.f),
        local=scene.local,
        bands=task.bands,
        split=task.source.split,
        buffer_px=buffer_of(task.source, task.blocks),
        fingerprint=fingerprint,
        labels_digest=labels_digest(task.source.labels, region_px=task.region_px),
        tiles=len(tally.kept),
        valid_pixels=sum(tally.splits.values()),
        split_pixels={code.name.lower(): tally.splits[code] for code in Split},
        labelled=pixels,
        regions=regions,
        dropped_labels=tally.dropped,
        invalid_labels=tally.invalid,
        issues=issues,
        moments=tally.moments,
        patches=task.patches,
    )


def _per_class(
    labels: LabelArrays, classes: Sequence[ClassInfo]
) -> tuple[dict[str, int], dict[str, int]]:
    """Labelled pixels, and distinct regions, by class name."""
    counts = np.zeros(len(classes), dtype=np.int64)
    pairs: set[int] = set()
    for top in range(0, labels.classes.shape[0], _STRIPE):
        ids, numbers = labels.classes[top : top + _STRIPE], labels.regions[top : top + _STRIPE]
        known = ids != IGNORE_INDEX
        counts += np.bincount(ids[known], minlength=len(classes))
        pairs.update(np.unique(numbers[known].astype(np.int64) * 256 + ids[known]).tolist())
    regions = Counter(pair % 256 for pair in pairs)
    return (
        {info.name: int(counts[info.class_id]) for info in classes},
        {info.name: regions[info.class_id] for info in classes},
    )
