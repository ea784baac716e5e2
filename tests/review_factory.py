"""Small queried rounds, their review files, and a person who edits them with other software."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window
from scipy import ndimage

from geohsal.config import OutputConfig
from geohsal.geo.patches import slices
from geohsal.geo.scene import ClassInfo, MapReader, QueryRegion, Scene, SceneMaps
from geohsal.geo.states import PixelState
from geohsal.io.review_file import write_review
from geohsal.io.review_origin import Asked as Record
from geohsal.io.review_read import ReviewedRound, read_reviews
from geohsal.io.review_rows import read_file
from geohsal.io.review_source import gather
from geohsal.io.round_record import AnswerTable

CLASSES = (
    ClassInfo(class_id=0, name="water", color="#0000ff"),
    ClassInfo(class_id=1, name="forest & shrub", color="#00ff00"),
    ClassInfo(class_id=2, name="building", color="#ff0000"),
)
SIDE, CELL = 64, 16
GRIDS = {
    "utm": (CRS.from_epsg(32632), Affine(10, 0, 500_000, 0, -10, 5_200_000)),
    "utm33": (CRS.from_epsg(32633), Affine(10, 0, 45_000, 0, -10, 5_200_000)),
    "turned": (CRS.from_epsg(32632), Affine.translation(5e5, 5.2e6) @ Affine.rotation(30)),
    "grid": (None, Affine.identity()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A queried round: what `write_review` was told, and the prefilled answers it gave back."""

    path: Path
    scenes: dict[str, Scene]
    maps: dict[str, SceneMaps]
    regions: list[QueryRegion]
    answers: AnswerTable

    def read(self, *paths: Path, **changes: object) -> ReviewedRound:
        """What is made of the file (or of others); `accept_valid` takes what has no problems."""
        accept_valid = bool(changes.pop("accept_valid", False))
        settings = {
            "index": 0,
            "request": None,
            "regions": {region.region_id: region for region in self.regions},
            "answers": {answer.answer_id: answer for answer in self.answers},
            "scenes": self.scenes,
            "num_classes": len(CLASSES),
        } | changes
        record = Record(**settings)  # type: ignore[arg-type]
        files = [read_file(source, record) for source in gather(list(paths) or [self.path])]
        return read_reviews(files, record, accept_valid=accept_valid)

    def refined(self, region: QueryRegion) -> NDArray[np.uint8]:
        """The refined classes of a region's cell, 255 outside its mask."""
        cell = region.cell
        rows = slice(cell.row_off, cell.row_off + cell.height)
        cols = slice(cell.col_off, cell.col_off + cell.width)
        return np.where(region.mask, self.maps[region.scene_id].refined[rows, cols], 255)


def make_maps(seed: int) -> SceneMaps:
    """Blobs of three classes in all states; the first rows have no data."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=(9, SIDE, SIDE)), (0, 3, 3))
    teacher = blobs[:3].argmax(0).astype(np.uint8)
    state = (blobs[3:].argmax(0) + 1).astype(np.uint8)
    refined = np.where(state == PixelState.CORRECTED, (teacher + 1) % 3, teacher).astype(np.uint8)
    for array, value in ((teacher, 255), (refined, 255), (state, PixelState.NODATA)):
        array[:4] = value
    unit = rng.random((SIDE, SIDE)).astype(np.float32)
    return SceneMaps(
        teacher=teacher,
        refined=refined,
        plar=refined,
        state=state,
        confidence=unit,
        error=unit,
        margin=unit,
        undecided=unit,
    )


def reader_of(maps: Mapping[str, SceneMaps]) -> MapReader:
    """Reads windows of maps in memory, and nothing outside them."""

    def read(scene_id: str, window: Window) -> SceneMaps:
        whole, at = maps[scene_id], slices(window)
        here = {field.name: getattr(whole, field.name)[at] for field in dataclasses.fields(whole)}
        assert here["state"].shape == (window.height, window.width), "outside the scene"
        return SceneMaps(**here)

    return read


def make_regions(
    scene: Scene, maps: SceneMaps, cells: Sequence[tuple[int, int]]
) -> Iterator[QueryRegion]:
    """One region per (row, col), without nodata and labelled pixels."""
    for rank, (row, col) in enumerate(cells, start=1):
        state = maps.state[row : row + CELL, col : col + CELL]
        yield QueryRegion(
            region_id=f"{scene.scene_id}_r{row:06d}_c{col:06d}",
            scene_id=scene.scene_id,
            round=0,
            rank=rank,
            cell=Window(col, row, CELL, CELL),
            mask=(state != PixelState.NODATA) & (state != PixelState.LABELLED),
            score=1 / (3 * rank),
            reason="half of it undecided",
            error_probability=0.25,
            undecided_share=0.5,
            teacher_class=1,
            plar_class=2 if rank == 1 else None,
            margin=0.1 + rank,
            area_m2=None if scene.local else 25_600.0,
            cost_min=1 / 3,
            audit=rank == 3,
        )


def make_asked(
    folder: Path,
    grids: Sequence[str] = ("utm",),
    *,
    cells: Sequence[tuple[int, int]] = ((0, 0), (16, 32), (48, 16)),
    sieve_px: int = 0,
    classes: Sequence[ClassInfo] = CLASSES,
    **provenance: object,
) -> Asked:
    """Write the review file of a round over scenes named after their grids."""
    scenes, maps, regions = {}, {}, []
    for seed, name in enumerate(grids):
        crs, transform = GRIDS[name]
        scenes[name] = Scene(
            scene_id=name,
            crs=crs,
            transform=transform,
            height=SIDE,
            width=SIDE,
            bands=("red",),
            local=crs is None,
        )
        maps[name] = make_maps(seed)
        regions += list(make_regions(scenes[name], maps[name], cells))
    regions = [dataclasses.replace(item, rank=rank) for rank, item in enumerate(regions, 1)]
    path = folder / "queries_r000.gpkg"
    answers = write_review(
        path,
        regions=regions,
        scenes=scenes,
        maps=reader_of(maps),
        classes=classes,
        config=OutputConfig(sieve_px=sieve_px, context_px=4),
        provenance={"request": "this-query", **provenance},
    )
    return Asked(path=path, scenes=scenes, maps=maps, regions=regions, answers=answers)


@contextmanager
def person(path: Path, layer: str) -> Iterator[geopandas.GeoDataFrame]:
    """A layer as a table; what the block leaves in it replaces the layer, as other tools would.

    Rows are added with `frame.loc[number]` and taken away with `delete`.
    """
    frame = geopandas.read_file(path, layer=layer, engine="pyogrio", fid_as_index=True)
    yield frame
    left = frame.drop(index=frame.attrs.pop("deleted", []))
    pyogrio.write_dataframe(
        left.reset_index(drop=True), path, layer=layer, driver="GPKG", promote_to_multi=True
    )


def delete(frame: geopandas.GeoDataFrame, fid: int) -> None:
    """Delete a row when the edit ends."""
    frame.attrs["deleted"] = [*frame.attrs.get("deleted", []), fid]


def tick(path: Path, status: str = "done", region_id: str | None = None) -> None:
    """Set the status of one region, or of all."""
    with person(path, "query_regions") as frame:
        rows = frame.region_id == region_id if region_id else slice(None)
        frame.loc[rows, "status"] = status
