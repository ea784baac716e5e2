"""One scene of a tile run: its tiles, splits, labels and band moments, a few rows at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.config import TileConfig
from geohsal.errors import RasterError
from geohsal.geo.blocks import SplitTable, assign_blocks, split_table
from geohsal.geo.moments import BandMoments
from geohsal.geo.scene import ClassInfo, Scene, Tile
from geohsal.geo.states import IGNORE_INDEX, Split
from geohsal.geo.tiling import make_tiles
from geohsal.io.ledger import LedgerEntry
from geohsal.io.manifest import Blocks, SceneSource
from geohsal.io.raster import SceneReader, open_scene
from geohsal.io.run_tables import SceneRecord, labels_digest
from geohsal.io.tile_image import write_tile_image
from geohsal.workflows.progress import Progress
from geohsal.workflows.scan_labels import LabelBand, LabelCounts, LabelFiles, manifest_labels

_READ_PX = 2**20
"""Pixels of one read, about: each is held as float32 in every band."""

_STRIP_ROWS = 1024
"""Rows that are worked on together, at most (but whole tiles)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneTask:
    """What `scan_scene` needs; plain values, so that it travels to a worker process.

    `entries` are the ledger's entries of this scene.
    """

    source: SceneSource
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...]
    blocks: Blocks
    tile: TileConfig
    region_px: int
    entries: tuple[LedgerEntry, ...] = ()
    patches: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneScan:
    """What one scene gave; `pixel_bytes` were read, as pixels."""

    record: SceneRecord
    tiles: tuple[Tile, ...]
    pixel_bytes: int


def scan_scene(task: SceneTask, stage: Path | None, *, progress: Progress) -> SceneScan:
    """Check one scene and its labels, cut it into tiles, and write its rasters to the stage.

    Args:
        task: the scene.
        stage: folder laid out like a run that takes the rasters; None: look only.
        progress: told of every tile.

    Raises:
        RasterError: the image is missing, unreadable, does not fit, or has no valid pixel.
        GeoreferenceError: it lies nowhere.
        LabelError: its labels are missing, unreadable or do not fit.
    """
    source = task.source
    with open_scene(source, task.bands, max_pixels=task.tile.max_pixels) as reader:
        scene, sizes = reader.scene, task.tile
        with (
            manifest_labels(source, scene, task.classes, region_px=task.region_px) as labels,
            LabelFiles(stage, scene, heldout=_holds_back(source)) as files,
        ):
            tiles = scene_tiles(
                source, scene, task.blocks, core_px=sizes.core_px, overlap_px=sizes.overlap_px
            )
            scan = _Scan(
                reader=reader,
                table=scene_splits(source, task.blocks, tiles, reader),
                patches=stage if task.patches else None,
                moments=BandMoments.empty(len(task.bands)),
                labels=LabelCounts(len(task.classes)),
            )
            progress.start(f"scene {source.scene_id}", len(tiles))
            for strip in _strips(tiles, block_rows=reader.block_rows):
                band = files.band(labels, strip)
                for together in _pieces(strip):
                    scan.piece(together, band)
                    progress.advance(len(together))
                scan.labels.add(band.classes, band.regions)
                files.append(band)
            progress.done()
            scan.refuse_empty()
            files.write(task.entries)
            record = _record(task, scan, issues=tuple(labels.issues()))
        kept = sorted(scan.kept, key=lambda tile: (tile.core.row_off, tile.core.col_off))
        return SceneScan(record=record, tiles=tuple(kept), pixel_bytes=reader.pixel_bytes)


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


def _strips(tiles: Sequence[Tile], *, block_rows: int) -> Iterator[list[Tile]]:
    """Whole rows of tiles, as many as it takes to read blocks whole; tiles are sorted by row."""
    enough = min(block_rows, _STRIP_ROWS)
    strip: list[Tile] = []
    for tile in tiles:
        top = tile.core.row_off
        if strip and top > strip[-1].core.row_off and top - strip[0].core.row_off >= enough:
            yield strip
            strip = []
        strip.append(tile)
    yield strip


def _pieces(strip: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Tiles of a strip that one read takes, from left to right: rectangles of whole columns."""
    columns: dict[int, list[Tile]] = {}
    for tile in strip:
        columns.setdefault(tile.core.col_off, []).append(tile)
    piece: list[Tile] = []
    pixels = 0
    for _, column in sorted(columns.items()):
        size = sum(int(tile.core.width * tile.core.height) for tile in column)
        if piece and pixels + size > _READ_PX:
            yield piece
            piece, pixels = [], 0
        piece.extend(column)
        pixels += size
    yield piece


def _around(windows: Sequence[Window]) -> Window:
    top = min(window.row_off for window in windows)
    left = min(window.col_off for window in windows)
    bottom = max(window.row_off + window.height for window in windows)
    right = max(window.col_off + window.width for window in windows)
    return Window(left, top, right - left, bottom - top)


def _slices(window: Window, of: Window) -> tuple[slice, slice]:
    """Where a window lies in another."""
    top, left = window.row_off - of.row_off, window.col_off - of.col_off
    return slice(top, top + window.height), slice(left, left + window.width)


@dataclass(slots=True, kw_only=True)
class _Scan:
    """A scene being read, and what grows while its tiles are counted.

    `patches` is the folder that takes tiles as files, under its own `patches`; None: no files.
    """

    reader: SceneReader
    table: SplitTable
    patches: Path | None
    moments: BandMoments
    labels: LabelCounts
    kept: list[Tile] = field(default_factory=list)
    splits: Counter[Split] = field(default_factory=Counter)
    dropped: int = 0
    invalid: int = 0

    def piece(self, tiles: Sequence[Tile], band: LabelBand) -> None:
        """Count some tiles in one read; sorts the labels of the band."""
        window = _around([tile.window if self.patches else tile.core for tile in tiles])
        pixels, valid = self.reader.read_with_valid(window)
        for tile in tiles:
            area = _slices(tile.core, window)
            if self.patches and valid[area].any():
                wide = _slices(tile.window, window)
                write_tile_image(
                    self.patches / "patches" / f"{tile.tile_id}.tif",
                    np.ascontiguousarray(pixels[(slice(None), *wide)]),
                    valid[wide],
                    scene=self.reader.scene,
                    window=tile.window,
                )
            self._tile(tile, pixels[(slice(None), *area)], valid[area], band=band)

    def _tile(
        self,
        tile: Tile,
        pixels: NDArray[np.float32],
        valid: NDArray[np.bool_],
        *,
        band: LabelBand,
    ) -> None:
        """Count one tile and gather its train pixels."""
        codes = self.table.read(tile.core)
        labelled = self._sort_labels(tile, valid, codes, band=band)
        count = int(valid.sum())
        if not count:
            return
        for code in Split:
            self.splits[code] += int((valid & (codes == code)).sum())
        train = valid & (codes == Split.TRAIN)
        self.moments = self.moments.merge(BandMoments.of(pixels[:, train]))
        self.kept.append(
            replace(tile, valid_share=count / valid.size, labelled_share=labelled / count)
        )

    def _sort_labels(
        self, tile: Tile, valid: NDArray[np.bool_], codes: NDArray[np.uint8], *, band: LabelBand
    ) -> int:
        """Keep the labels of valid train pixels, move those of val and test; how many stayed."""
        area = _slices(tile.core, band.window)
        classes, regions = band.classes[area], band.regions[area]
        labelled = classes != IGNORE_INDEX
        if not labelled.any():
            return 0
        train = valid & (codes == Split.TRAIN)
        away = labelled & valid & ~train
        self.invalid += int((labelled & ~valid).sum())
        self.dropped += int(away.sum())
        if band.heldout is not None:
            apart = away & (codes != Split.BUFFER)
            band.heldout[0][area][apart] = classes[apart]
            band.heldout[1][area][apart] = regions[apart]
        classes[~train] = IGNORE_INDEX
        regions[~train] = 0
        return int((labelled & train).sum())

    def refuse_empty(self) -> None:
        """No tile has a valid pixel.

        Raises:
            RasterError: so it is.
        """
        if not self.kept:
            source = self.reader.source
            raise RasterError(
                f"scene {source.scene_id!r}: {source.image}: no valid pixel; check nodata, mask "
                "and aoi"
            )


def _record(task: SceneTask, scan: _Scan, *, issues: tuple[str, ...]) -> SceneRecord:
    scene = scan.reader.scene
    pixels, regions = scan.labels.by_class([info.class_id for info in task.classes])
    names = [info.name for info in task.classes]
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
        fingerprint=scan.reader.fingerprint(),
        labels_digest=labels_digest(task.source.labels, region_px=task.region_px),
        tiles=len(scan.kept),
        valid_pixels=sum(scan.splits.values()),
        split_pixels={code.name.lower(): scan.splits[code] for code in Split},
        labelled=dict(zip(names, pixels, strict=True)),
        regions=dict(zip(names, regions, strict=True)),
        dropped_labels=scan.dropped,
        invalid_labels=scan.invalid,
        issues=issues,
        moments=scan.moments,
        patches=task.patches,
        glance=scan.reader.glance(),
    )
