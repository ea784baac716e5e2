"""Candidate regions: sums by hand, any cut into windows, ids, small scenes, misuse."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.geo.scene import SceneMaps, Tile
from geohsal.geo.states import PixelState
from geohsal.query.cell_sums import CellSums
from geohsal.query.feature_sums import sum_features
from geohsal.query.layout import atom_px, grid_atoms, grid_layout, window_layout
from geohsal.query.regions import Candidates, join_candidates, region_id, tiles_of

MapsFactory = Callable[..., SceneMaps]
CandidatesFactory = Callable[..., Candidates]


def cut(maps: SceneMaps, rows: slice, cols: slice) -> SceneMaps:
    return SceneMaps(
        **{f.name: getattr(maps, f.name)[rows, cols] for f in dataclasses.fields(SceneMaps)}
    )


def empty(shape: tuple[int, int], unit: str, side: int, *, features: int = 0) -> CellSums:
    make = grid_layout if unit == "grid" else window_layout
    return CellSums("north", make(shape, region_px=side), num_classes=3, num_features=features)


def atoms_at(sums: CellSums, window: tuple[int, int, int, int]) -> NDArray[np.int32]:
    top, left, bottom, right = window
    layout = sums.layout
    side = atom_px(layout.unit, layout.region_px)
    shape = (bottom - top, right - left)
    return grid_atoms(top, left, shape=shape, side=side, scene_width=layout.shape[1])


def sums_of(
    maps: SceneMaps,
    pool: NDArray[np.bool_],
    *,
    region_px: int,
    features: NDArray[np.float32] | None = None,
    windows: list[tuple[int, int, int, int]] | None = None,
    unit: str = "grid",
) -> CellSums:
    number = 0 if features is None else len(features)
    sums = empty(pool.shape, unit, region_px, features=number)
    for window in windows or [(0, 0, *pool.shape)]:
        top, left, bottom, right = window
        rows, cols = slice(top, bottom), slice(left, right)
        atoms = atoms_at(sums, window)
        sums.add(atoms, pool[rows, cols], maps=cut(maps, rows, cols))
        if features is not None:
            values = torch.from_numpy(np.ascontiguousarray(features[:, rows, cols]))
            sums.add_features(sum_features(values, atoms, pool[rows, cols]))
    return sums


def assert_same(first: Candidates, second: Candidates) -> None:
    for field in dataclasses.fields(Candidates):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


def edges(length: int) -> st.SearchStrategy[list[int]]:
    inner = st.lists(st.integers(1, max(1, length - 1)), max_size=4)
    return inner.map(lambda cuts: sorted({0, length, *(c for c in cuts if c < length)}))


@settings(max_examples=40)
@given(
    data=st.data(),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    region_px=st.integers(2, 8),
    unit=st.sampled_from(["grid", "window"]),
    seed=st.integers(0, 1000),
)
def test_any_cut_in_any_order_gives_the_same_bits(
    make_maps: MapsFactory,
    data: st.DataObject,
    height: int,
    width: int,
    region_px: int,
    unit: str,
    seed: int,
) -> None:
    region_px *= 2
    rng = np.random.default_rng(seed)
    wide = 10.0 ** rng.uniform(-8, 4, (4, height, width))  # sums of these round in float64
    maps = make_maps((height, width), seed=seed, margin=wide[3].astype(np.float32))
    pool = (maps.state > PixelState.LABELLED) & (rng.random((height, width)) < 0.9)
    features = (rng.normal(size=(3, height, width)) * wide[:3]).astype(np.float32)
    rows, cols = data.draw(edges(height)), data.draw(edges(width))
    windows = [
        (top, left, bottom, right)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(cols)
    ]
    windows = data.draw(st.permutations(windows))
    given_ = {"region_px": region_px, "unit": unit, "features": features}
    once = sums_of(maps, pool, **given_)
    parts = sums_of(maps, pool, windows=windows, **given_)
    assert_same(once.candidates(min_share=0.3), parts.candidates(min_share=0.3))


@settings(max_examples=25)
@given(height=st.integers(8, 30), width=st.integers(8, 30), seed=st.integers(0, 1000))
def test_statistics_are_those_of_each_cell_alone(
    make_maps: MapsFactory, height: int, width: int, seed: int
) -> None:
    maps = make_maps((height, width), seed=seed)
    pool = maps.state > PixelState.LABELLED
    features = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    found = sums_of(maps, pool, region_px=8, features=features).candidates(min_share=0.5)
    expected = {
        (row, col)
        for row in range(-(-height // 8))
        for col in range(-(-width // 8))
        if pool[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8].sum() >= 32
    }
    assert {(int(r), int(c)) for r, c in zip(found.row, found.col, strict=True)} == expected
    for i in range(len(found)):
        at = found.window(i).toslices()
        mask, state = pool[at], maps.state[at][pool[at]]
        asked = maps.plar[at][mask] < 3
        assert found.pixels[i] == mask.sum()
        assert found.score_sum[i] == pytest.approx(maps.undecided[at][mask].sum(), abs=1e-4)
        assert found.mean_error[i] == pytest.approx(maps.error[at][mask].mean(), abs=1e-5)
        assert found.ambiguous_share[i] == (state == PixelState.AMBIGUOUS).mean()
        assert found.novel_share[i] == (state == PixelState.NOVEL).mean()
        assert found.undecided_share[i] == pytest.approx((state >= PixelState.AMBIGUOUS).mean())
        margin = maps.margin[at][mask][asked].mean() if asked.any() else 0.0
        assert found.margin[i] == pytest.approx(margin, abs=1e-5)
        assert found.teacher_class[i] == np.bincount(maps.teacher[at][mask]).argmax()
        assert found.answers[i] == np.unique(maps.refined[at][mask]).size
        np.testing.assert_allclose(
            found.features[i], features[(slice(None), *at)][:, mask].mean(axis=1), atol=1e-5
        )


def test_classes_named_at_ambiguous_pixels(make_maps: MapsFactory) -> None:
    state = np.full((8, 8), PixelState.TRUSTED, dtype=np.uint8)
    state[:4] = PixelState.AMBIGUOUS
    teacher = np.zeros((8, 8), dtype=np.uint8)
    teacher[:4] = 2
    plar = np.full((8, 8), 255, dtype=np.uint8)
    plar[:3], plar[3:4] = 1, 2
    maps = make_maps((8, 8), state=state, teacher=teacher, plar=plar, refined=teacher)
    found = sums_of(maps, np.ones((8, 8), dtype=bool), region_px=8).candidates(min_share=0.5)
    assert found.ambiguous.tolist() == [[2, 1]]
    assert found.plar_class.tolist() == [1]
    assert found.teacher_class.tolist() == [0]


def test_where_plar_was_not_asked_there_is_no_class_and_no_margin(make_maps: MapsFactory) -> None:
    maps = make_maps(
        (8, 8),
        state=np.full((8, 8), PixelState.TRUSTED, dtype=np.uint8),
        plar=np.full((8, 8), 255, dtype=np.uint8),
    )
    found = sums_of(maps, np.ones((8, 8), dtype=bool), region_px=8).candidates(min_share=0.5)
    assert found.plar_class.tolist() == [-1]
    assert found.margin.tolist() == [0.0]
    assert found.ambiguous.tolist() == [[-1, -1]]


def test_cells_cut_by_the_edge_count_their_true_pixels(make_maps: MapsFactory) -> None:
    state = np.full((20, 24), PixelState.TRUSTED, dtype=np.uint8)
    found = sums_of(make_maps((20, 24), state=state), state > 0, region_px=16).candidates(
        min_share=0.25
    )
    assert found.pixels.tolist() == [256, 128, 64]  # the corner of 4 x 8 is below a quarter
    assert [found.window(i) for i in (1, 2)] == [Window(16, 0, 8, 16), Window(0, 16, 16, 4)]


def test_a_scene_smaller_than_a_region_keeps_its_best_cell(make_maps: MapsFactory) -> None:
    state = np.zeros((20, 20), dtype=np.uint8)
    state[2:5, 2:5] = PixelState.TRUSTED
    state[17:, 17:] = PixelState.TRUSTED
    state[17, 17] = PixelState.LABELLED
    maps = make_maps((20, 20), state=state)
    found = sums_of(maps, state == PixelState.TRUSTED, region_px=16).candidates(min_share=0.5)
    assert [found.region_id(i) for i in range(len(found))] == ["north-g16-r00000-c00000"]
    assert found.pixels.tolist() == [9]


def test_a_scene_asked_to_the_end_has_no_candidate(make_maps: MapsFactory) -> None:
    state = np.full((16, 16), PixelState.LABELLED, dtype=np.uint8)
    state[0, :5] = PixelState.TRUSTED  # a sliver that is left, in a cell that was large enough
    maps = make_maps((16, 16), state=state)
    pool = state == PixelState.TRUSTED
    assert len(sums_of(maps, pool, region_px=16).candidates(min_share=0.5)) == 0


def test_region_ids_say_scene_grid_and_cell() -> None:
    assert region_id("north", 7, col=123456, region_px=32) == "north-g32-r00007-c123456"


def test_overlapping_windows_are_refused(make_maps: MapsFactory) -> None:
    maps = make_maps((8, 8), state=np.full((8, 8), PixelState.TRUSTED, dtype=np.uint8))
    pool = np.ones((8, 8), dtype=bool)
    sums = sums_of(maps, pool, region_px=8, windows=[(0, 0, 8, 8), (0, 0, 8, 8)])
    with pytest.raises(ValueError, match="scene north: windows added to its regions overlap"):
        sums.candidates(min_share=0.5)


def test_windows_and_maps_must_fit(make_maps: MapsFactory) -> None:
    maps, pool = make_maps((8, 8)), np.ones((8, 8), dtype=bool)
    sums = empty((8, 8), "grid", 8, features=2)
    atoms = atoms_at(sums, (0, 0, 8, 8))
    with pytest.raises(ValueError, match="scene north: atom 1 of 1"):
        sums.add(atoms + 1, pool, maps=maps)
    with pytest.raises(ValueError, match="sums of 1 features, expected 2, over atoms of 1"):
        sums.add_features(sum_features(torch.zeros(1, 8, 8), atoms, pool))
    with pytest.raises(ValueError, match=r"maps teacher, .* do not fit the pool"):
        sums.add(atoms[:4], pool[:4], maps=maps)
    with pytest.raises(ValueError, match="maps atoms do not fit the pool"):
        sums.add(atoms[:4], pool, maps=maps)


def test_nan_in_the_pool_is_refused_and_elsewhere_ignored(make_maps: MapsFactory) -> None:
    state = np.full((8, 8), PixelState.TRUSTED, dtype=np.uint8)
    error = np.full((8, 8), 0.5, dtype=np.float32)
    error[0, 0] = np.nan
    maps = make_maps((8, 8), state=state, error=error)
    pool = np.ones((8, 8), dtype=bool)
    with pytest.raises(ValueError, match="scene north: a map or feature of the pool is not finite"):
        sums_of(maps, pool, region_px=8).candidates(min_share=0.5)
    pool[0, 0] = False
    assert sums_of(maps, pool, region_px=8).candidates(min_share=0.5).mean_error.tolist() == [0.5]


def test_joined_tables_keep_scene_and_row(make_candidates: CandidatesFactory) -> None:
    south = make_candidates([("south", 1, 2)], pixels=[7])
    both = make_candidates([("north", 3, 4), ("south", 5, 6)], pixels=[8, 9])
    joined = join_candidates([south, both])
    ids = [joined.region_id(i) for i in range(3)]
    assert ids == ["south-g16-r00001-c00002", "north-g16-r00003-c00004", "south-g16-r00005-c00006"]
    assert joined.pixels.tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match="one region unit and size"):
        join_candidates([south, dataclasses.replace(both, region_px=8)])


def test_tiles_of_candidates_are_those_of_their_centres(make_candidates: CandidatesFactory) -> None:
    def tile(name: str, scene: str, core: tuple[int, int, int, int]) -> Tile:
        window = Window(*core)
        return Tile(tile_id=name, scene_id=scene, core=window, window=window, split="train")

    tiles = [
        tile("a", "north", (0, 0, 40, 64)),
        tile("b", "north", (40, 0, 24, 64)),
        tile("c", "south", (0, 0, 64, 64)),
    ]
    cells = [("north", 0, 1), ("south", 0, 3), ("north", 3, 2), ("north", 3, 3)]
    assert tiles_of(make_candidates(cells), tiles).tolist() == ["a", "c", "b", "b"]
    with pytest.raises(ValueError, match="centre of region south-g16-r00000-c00003"):
        tiles_of(make_candidates(cells), tiles[:2])


def test_means_are_over_the_pixels_that_were_summed_although_the_pool_shrank(
    make_maps: MapsFactory,
) -> None:
    maps = make_maps((16, 16), state=np.full((16, 16), PixelState.TRUSTED, dtype=np.uint8))
    features, whole = torch.full((2, 16, 16), 3.0), np.ones((16, 16), dtype=bool)
    sums = empty((16, 16), "window", 8, features=2)
    atoms = atoms_at(sums, (0, 0, 16, 16))
    sums.add_features(sum_features(features, atoms, whole))
    rested = whole.copy()
    rested[4:12, 4:12] = False  # a region that rests: known once all maps are there
    sums.add(atoms, rested, maps=maps)
    found = sums.candidates(min_share=0.25)
    assert len(found) > 1
    assert found.pixels.min() < 64
    np.testing.assert_array_equal(found.features, np.full((len(found), 2), 3.0))
