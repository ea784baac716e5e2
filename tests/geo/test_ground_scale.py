"""A scale bar holds on the ground, whatever the CRS counts in."""

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geohsal.geo.ground_scale import BAR_SHARE, bar_metres, column_step_m
from geohsal.geo.scene import Scene


def scene(crs: int | None, transform: Affine, *, local: bool = False) -> Scene:
    return Scene(
        scene_id="s", crs=None if crs is None else CRS.from_epsg(crs), transform=transform,
        height=100, width=200, bands=("red",), local=local,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        (32632, Affine(10, 0, 500_000, 0, -10, 5_200_000), 10.0),
        (32632, Affine.translation(5e5, 5.2e6) @ Affine.rotation(30) @ Affine.scale(10, 4), 10.0),
        (2263, Affine(1, 0, 980_000, 0, -1, 200_000), 0.3048),  # US survey feet
        (3857, Affine(10, 0, 0, 0, -10, 8_399_737.9), 5.0),  # at 60 degrees north
        (4326, Affine(0.001, 0, -0.1, 0, -0.001, 0.05), 111.3),  # at the equator
    ],
)
def test_a_step_is_what_it_is_on_the_ground(crs: int, transform: Affine, metres: float) -> None:
    assert column_step_m(scene(crs, transform)) == pytest.approx(metres, rel=4e-3)


def test_scenes_without_a_ground_have_no_step() -> None:
    assert column_step_m(scene(None, Affine.identity())) is None
    assert column_step_m(scene(32632, Affine.identity(), local=True)) is None


@given(st.floats(1e-3, 1e9))
def test_a_bar_fits_and_is_not_tiny(width: float) -> None:
    metres = bar_metres(width)
    assert 0.3 * BAR_SHARE * width < metres <= BAR_SHARE * width
    assert f"{metres:.0e}"[0] in "125"
