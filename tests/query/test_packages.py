"""Sharing a round out: all regions once, the overlap twice, equal work, neighbours together."""

import dataclasses

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.windows import Window

from geohsal.errors import RequestError
from geohsal.geo.scene import QueryRegion, Scene
from geohsal.query.packages import deal, region_positions

PX = 32


def make_region(row: int, col: int, *, minutes: float = 1.0, scene: str = "north") -> QueryRegion:
    return QueryRegion(
        region_id=f"{scene}-g32-r{row:05d}-c{col:05d}",
        scene_id=scene,
        round=0,
        rank=1,
        cell=Window(col * PX, row * PX, PX, PX),
        mask=np.ones((PX, PX), dtype=bool),
        score=1.0,
        reason="",
        error_probability=0.5,
        undecided_share=0.5,
        teacher_class=0,
        plar_class=None,
        margin=0.0,
        area_m2=None,
        cost_min=minutes,
        audit=False,
    )


def make_scene(name: str, *, east: float = 500_000, local: bool = False) -> Scene:
    return Scene(
        scene_id=name,
        crs=None if local else CRS.from_epsg(32632),
        transform=Affine.identity() if local else Affine(10, 0, east, 0, -10, 5_300_000),
        height=4096,
        width=4096,
        bands=("red",),
        local=local,
    )


def grid(rows: int, cols: int) -> tuple[list[QueryRegion], np.ndarray]:
    regions = [make_region(row, col) for row in range(rows) for col in range(cols)]
    return regions, region_positions(regions, {"north": make_scene("north")})


@settings(deadline=None, max_examples=60)
@given(
    minutes=st.lists(st.floats(0.1, 5), min_size=6, max_size=40),
    packages=st.integers(1, 6),
    overlap=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_every_region_is_in_one_package_and_the_overlap_in_two(
    minutes: list[float], packages: int, overlap: float, seed: int
) -> None:
    regions = [make_region(n // 7, n % 7, minutes=cost) for n, cost in enumerate(minutes)]
    positions = region_positions(regions, {"north": make_scene("north")})
    shares, extra = deal(regions, positions, packages=packages, overlap=overlap, seed=seed)
    times = np.bincount(np.concatenate(shares), minlength=len(regions))
    wanted = max(1, round(overlap * len(regions))) if overlap and packages > 1 else 0
    assert len(shares) == packages
    assert all(shares)
    assert set(times) <= {1, 2}
    assert (times == 2).sum() == wanted
    assert extra == pytest.approx(sum(np.array(minutes)[times == 2]))
    assert [list(share) for share in shares] == [sorted(share) for share in shares]
    again, _ = deal(regions, positions, packages=packages, overlap=overlap, seed=seed)
    assert again == shares


@pytest.mark.parametrize("packages", [2, 3, 5, 8])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.3])
def test_packages_cost_the_same_within_a_region_or_two(packages: int, overlap: float) -> None:
    rng = np.random.default_rng(0)
    regions, positions = grid(20, 20)
    regions = [dataclasses.replace(r, cost_min=float(rng.uniform(0.3, 1.0))) for r in regions]
    shares, _ = deal(regions, positions, packages=packages, overlap=overlap)
    spent = [sum(regions[place].cost_min for place in share) for share in shares]
    assert max(spent) - min(spent) <= max(2.0, overlap * np.mean(spent))


def test_a_package_is_one_compact_area() -> None:
    regions, positions = grid(16, 16)
    shares, _ = deal(regions, positions, packages=4)
    for share in shares:
        own = positions[list(share)]
        assert np.ptp(own, axis=0).max() < 0.55 * np.ptp(positions, axis=0).max()


def test_scenes_far_apart_go_to_different_people() -> None:
    scenes = {"east": make_scene("east", east=600_000), "west": make_scene("west")}
    regions = [make_region(row, 0, scene=name) for name in scenes for row in range(4)]
    shares, _ = deal(regions, region_positions(regions, scenes), packages=2)
    assert [{regions[place].scene_id for place in share} for share in shares] == [
        {"west"},
        {"east"},
    ]


def test_scenes_without_a_position_stay_whole_where_they_can() -> None:
    scenes = {name: make_scene(name, local=True) for name in ("a", "b", "c")}
    regions = [make_region(row, 0, scene=name) for name in scenes for row in range(3)]
    shares, _ = deal(regions, region_positions(regions, scenes), packages=3)
    assert [{regions[place].scene_id for place in share} for share in shares] == [
        {"a"},
        {"b"},
        {"c"},
    ]
    mixed = {**scenes, "north": make_scene("north")}
    regions += [make_region(row, 0) for row in range(3)]
    shares, _ = deal(regions, region_positions(regions, mixed), packages=4)
    assert all(len({regions[place].scene_id for place in share}) == 1 for share in shares)


def test_second_reviews_stay_within_the_minutes_left() -> None:
    regions, positions = grid(5, 4)
    shares, extra = deal(regions, positions, packages=2, overlap=0.5, spare_min=3.0)
    assert extra == 3.0
    assert sum(map(len, shares)) == len(regions) + 3


def test_fewer_regions_than_packages_are_refused() -> None:
    regions, positions = grid(1, 2)
    with pytest.raises(RequestError, match=r"--packages 3: the budget buys 2 regions, fewer than"):
        deal(regions, positions, packages=3)
