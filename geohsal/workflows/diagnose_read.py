"""A round's maps beside what is true there: pixels of answered regions, or of the whole pool."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import DataError, LabelError
from geohsal.geo.blocks import SplitTable, split_table
from geohsal.geo.patches import slices
from geohsal.geo.scene import Scene
from geohsal.geo.states import IGNORE_INDEX, PixelState, Split
from geohsal.io.gdal import GDAL_ERRORS, quiet, reason
from geohsal.io.labels import read_truth
from geohsal.io.ledger import active_entries, decode_classes, read_ledger
from geohsal.io.manifest import Manifest
from geohsal.io.round_record import read_regions
from geohsal.io.run import RasterKind, Round, Run
from geohsal.io.run_tables import load_scenes, load_tiles, read_summary
from geohsal.refine.diagnosis import DiagnosisCounts, JudgedPixels, count_pixels, no_counts

STRIPE_ROWS = 1024
BLOCK_PX = 512
MOST_BLOCKS = 64
"""Blocks of a run that the change of the map is measured on; the others are assumed to be alike."""

_KINDS: tuple[RasterKind, ...] = ("class", "confidence", "error", "state")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownRegion:
    """A region with what is true in its cell: `classes` (row, col), 255 unknown."""

    scene_id: str
    region_id: str
    cell: Window
    classes: NDArray[np.uint8]
    audit: bool


class RoundMaps:
    """The open rasters of one scene and round."""

    def __init__(self, open_rasters: Mapping[RasterKind, rasterio.DatasetReader]) -> None:
        self._rasters = open_rasters

    def pixels(
        self, window: Window, reference: NDArray[np.uint8], region: NDArray[np.integer]
    ) -> JudgedPixels:
        """The pixels of a window whose reference is known; `region` (row, col) numbers regions.

        Raises:
            DataError: a raster is damaged.
        """
        known = reference != IGNORE_INDEX
        refined, teacher = self._read("class", window)
        return JudgedPixels(
            teacher=teacher[known],
            refined=refined[known],
            state=self._read("state", window)[0][known],
            confidence=np.nan_to_num(self._read("confidence", window)[0][known]),
            error=np.nan_to_num(self._read("error", window)[0][known]),
            reference=reference[known],
            region=region[known],
        )

    def free(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The teacher's classes of a window, and where it is valid and not labelled."""
        state = self._read("state", window)[0]
        return self._read("class", window)[1], (state > PixelState.LABELLED)

    def _read(self, kind: RasterKind, window: Window) -> NDArray[np.uint8]:
        raster = self._rasters[kind]
        try:
            found: NDArray[np.uint8] = raster.read(window=window)
        except GDAL_ERRORS as error:
            raise DataError(f"{raster.name}: cannot be read ({reason(error)})") from None
        return found


@contextmanager
def open_maps(
    round_: Round, scene_id: str, kinds: Sequence[RasterKind] = _KINDS
) -> Iterator[RoundMaps]:
    """The rasters of a scene.

    Raises:
        DataError: one is missing or damaged.
    """
    with ExitStack() as stack:
        found: dict[RasterKind, rasterio.DatasetReader] = {}
        for kind in kinds:
            path = round_.raster(scene_id, kind)
            try:
                with quiet():
                    found[kind] = stack.enter_context(rasterio.open(path))
            except GDAL_ERRORS as error:
                raise DataError(
                    f"{path}: cannot be read ({reason(error)}); bring the rasters of round "
                    f"{round_.index} back"
                ) from None
        yield RoundMaps(found)


def answered_regions(run: Run, round_: Round) -> list[KnownRegion]:
    """What people said of the round's regions, by the ledger; settled differences included."""
    found: dict[tuple[str, str], KnownRegion] = {}
    for entry in active_entries(read_ledger(run.ledger)):
        row, col, height, width = entry.cell
        if entry.round != round_.index or not height:
            continue
        name = (entry.scene_id, entry.region_id)
        classes = decode_classes(entry.classes_rle, height=height, width=width)
        before = found.get(name)
        if before is not None:
            classes = np.where(classes != IGNORE_INDEX, classes, before.classes)
        found[name] = KnownRegion(
            scene_id=entry.scene_id,
            region_id=entry.region_id,
            cell=Window(col, row, width, height),
            classes=classes.astype(np.uint8),
            audit=entry.audit,
        )
    return list(found.values())


def asked_regions(round_: Round, truths: Mapping[str, NDArray[np.uint8]]) -> list[KnownRegion]:
    """The round's regions with the truth in the pixels asked about."""
    return [
        KnownRegion(
            scene_id=region.scene_id,
            region_id=region.region_id,
            cell=region.cell,
            classes=np.where(
                region.mask, truths[region.scene_id][slices(region.cell)], IGNORE_INDEX
            ).astype(np.uint8),
            audit=region.audit,
        )
        for region in read_regions(round_.regions)
        if region.scene_id in truths
    ]


def count_regions(
    round_: Round, regions: Sequence[KnownRegion], *, num_classes: int
) -> tuple[DiagnosisCounts, DiagnosisCounts]:
    """Counts of regions chosen for their worth, and of those drawn at random (audit)."""
    sums = {False: no_counts(num_classes), True: no_counts(num_classes)}
    for scene_id in sorted({item.scene_id for item in regions}):
        with open_maps(round_, scene_id) as maps:
            for number, item in enumerate(regions):
                if item.scene_id != scene_id:
                    continue
                region = np.full(item.classes.shape, number, np.int64)
                pixels = maps.pixels(item.cell, item.classes, region)
                counts = count_pixels(pixels, num_classes=num_classes)
                sums[item.audit] = sums[item.audit].merge(counts)
    return sums[False], sums[True]


def read_truths(run: Run, manifest: Manifest) -> dict[str, NDArray[np.uint8]]:
    """Truth (row, col) by scene, 255 unknown; scenes without are left out.

    Raises:
        LabelError: no scene has any, or one cannot be read.
    """
    scenes = load_scenes(run)
    found = {
        source.scene_id: read_truth(
            source.truth,
            scenes[source.scene_id],
            manifest.classes,
            where=f"scene {source.scene_id}: truth",
        )
        for source in manifest.scenes
        if source.truth is not None
    }
    if not found:
        raise LabelError(f"{run.path}: no scene has truth; give `truth:` in the manifest")
    return found


def count_pool(
    run: Run,
    round_: Round,
    truths: Mapping[str, NDArray[np.uint8]],
    *,
    num_classes: int,
    region_px: int,
) -> DiagnosisCounts:
    """Counts of all pixels of train cores that were valid and unlabelled; regions are grid cells.

    Pixels that reviewers of earlier rounds left unknown are among them; scenes that were added to
    the run after the round are not.

    Raises:
        DataError: rasters of the round are missing or damaged.
    """
    total = no_counts(num_classes)
    tables = split_tables(run)
    rows = max(1, STRIPE_ROWS // region_px) * region_px  # no cell lies in two stripes
    for scene_id in _mapped(round_, truths) or truths:
        truth = truths[scene_id]
        with open_maps(round_, scene_id) as maps:
            height, width = truth.shape
            cells = np.arange(width) // region_px
            for row in range(0, height, rows):
                window = Window(0, row, width, min(rows, height - row))
                train = tables[scene_id].read(window) == Split.TRAIN
                known = np.where(train, truth[slices(window)], IGNORE_INDEX).astype(np.uint8)
                down = np.arange(window.height) // region_px
                pixels = maps.pixels(window, known, down[:, None] * width + cells)
                total = total.merge(count_pixels(pixels, num_classes=num_classes))
    return total


def split_tables(run: Run) -> dict[str, SplitTable]:
    """Splits of every scene, without opening its image."""
    tiles = load_tiles(run)
    return {
        scene_id: split_table(tiles.get(scene_id, []), buffer_px=record.buffer_px)
        for scene_id, record in read_summary(run).scenes.items()
    }


def changed_share(run: Run, round_: Round, *, seed: int) -> float | None:
    """Share of pool pixels to which the teacher gives another class than the round before.

    Large runs are measured on blocks drawn at random. Scenes that were added to the run after the
    round before are left out. None for the first round, where a round has no rasters any more, and
    where there is no pool.

    Raises:
        DataError: a raster is damaged.
    """
    if round_.index == 0:
        return None
    before = run.round(round_.index - 1)
    known = set(_mapped(before, _mapped(round_, load_scenes(run))))
    scenes = {name: scene for name, scene in load_scenes(run).items() if name in known}
    tables = split_tables(run)
    changed = pool = 0
    for scene_id, windows in _blocks(scenes, np.random.default_rng([seed, round_.index])).items():
        with (
            open_maps(before, scene_id, ("class", "state")) as old_maps,
            open_maps(round_, scene_id, ("class", "state")) as new_maps,
        ):
            for window in windows:
                old, _ = old_maps.free(window)
                new, free = new_maps.free(window)
                free &= tables[scene_id].read(window) == Split.TRAIN
                pool += int(free.sum())
                changed += int((free & (old != new)).sum())
    return changed / pool if pool else None


def _mapped(round_: Round, scene_ids: Iterable[str]) -> list[str]:
    """Those of the scenes that the round has maps of; one that was added later has none."""
    return [name for name in scene_ids if round_.raster(name, "class").exists()]


def _blocks(scenes: Mapping[str, Scene], rng: np.random.Generator) -> dict[str, list[Window]]:
    """All blocks by scene, or as many as may be read."""
    blocks = [
        (scene_id, row, col)
        for scene_id, scene in scenes.items()
        for row in range(0, scene.height, BLOCK_PX)
        for col in range(0, scene.width, BLOCK_PX)
    ]
    drawn = rng.permutation(len(blocks))[:MOST_BLOCKS]
    found: dict[str, list[Window]] = {}
    for scene_id, row, col in (blocks[place] for place in sorted(drawn.tolist())):
        height, width = scenes[scene_id].shape
        window = Window(col, row, min(BLOCK_PX, width - col), min(BLOCK_PX, height - row))
        found.setdefault(scene_id, []).append(window)
    return found
