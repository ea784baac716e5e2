"""Maps of a report: which scenes, how large, and what their layers show."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from report_factory import SIDE, Made, make_run, query_round, regions_of, scene_maps, view

from geohsal.errors import DataError
from geohsal.geo.scene import Scene
from geohsal.geo.states import STATE_COLORS, PixelState
from geohsal.io.run import Round
from geohsal.workflows import report_map
from geohsal.workflows.report_map import (
    chosen_scenes,
    draw_maps,
    draw_scene,
    error_stops,
    longest_px,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two scenes, queried in both."""
    made = make_run(tmp_path_factory.mktemp("maps"))
    query_round(made)
    return made


@pytest.fixture
def round_(made: Made) -> Round:
    return made.run.round(0)


def pixels(uri: str) -> NDArray[np.uint8]:
    data = base64.b64decode(uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def rgb(color: str) -> list[int]:
    return list(bytes.fromhex(color[1:]))


def named(count: int) -> dict[str, Scene]:
    scene = Scene(
        scene_id="x", crs=None, transform=Affine.identity(), height=9, width=9, bands=("red",)
    )
    return {f"s{number}": replace(scene, scene_id=f"s{number}") for number in range(count)}


def test_asked_scenes_come_first_and_a_few_others_fill_up() -> None:
    scenes = named(200)
    assert chosen_scenes(scenes, {"s150", "s7"}) == ["s7", "s150", "s0", "s1", "s2", "s3"]
    asked = {f"s{number}" for number in range(100, 120)}
    assert chosen_scenes(scenes, asked) == [f"s{number}" for number in range(100, 120)]
    assert chosen_scenes(named(3), set()) == ["s0", "s1", "s2"]


def test_many_scenes_get_smaller_maps() -> None:
    assert [longest_px(count) for count in (0, 1, 4, 16, 400)] == [1024, 1024, 1024, 512, 384]


def test_layers_show_the_rasters(made: Made, round_: Round) -> None:
    scene = made.scenes["north"]
    drawn = draw_scene(round_, scene, regions_of(scene), made.classes, longest=SIDE)
    maps = scene_maps(len(made.classes))
    assert list(drawn.layers) == ["image", "classes", "error", "states"]
    classes, states = pixels(drawn.layers["classes"]), pixels(drawn.layers["states"])
    for info in made.classes:
        here = maps.refined == info.class_id
        assert here.any()
        assert (classes[here] == [*rgb(info.color), 255]).all()
    corrected = maps.state == PixelState.CORRECTED
    assert (states[corrected] == [*rgb(STATE_COLORS[PixelState.CORRECTED]), 255]).all()
    assert all((pixels(uri)[:4, :, 3] == 0).all() for uri in drawn.layers.values())
    image = pixels(drawn.layers["image"])[8:, :, :3].astype(int)
    assert np.abs(image - np.moveaxis(view(), 0, -1)[8:]).mean() < 12
    error = pixels(drawn.layers["error"]).astype(int).sum(axis=-1)
    assert error[45, 15] > error[20, 60] + 150  # bright where the probability is high


def test_a_small_map_says_what_a_shown_pixel_is(made: Made, round_: Round) -> None:
    drawn = draw_scene(round_, made.scenes["north"], [], made.classes, longest=24)
    assert pixels(drawn.layers["classes"]).shape == (24, 24, 4)
    assert drawn.shrink == 4


def test_regions_are_outlined_without_what_is_not_asked(made: Made, round_: Round) -> None:
    scene = made.scenes["north"]
    drawn = draw_scene(round_, scene, regions_of(scene), made.classes, longest=SIDE)
    first, second, audit = drawn.outlines
    assert first.path.count("L") == 5  # a cell without a corner
    assert set(second.path.strip("MZ").split("L")) == {"32 32", "32 48", "48 48", "48 32"}
    assert (first.audit, second.audit, audit.audit) == (False, False, True)
    assert first.title == (
        "Rank 1: half of it <undecided>; 231 pixels, error probability 0.40 (north-1)"
    )
    assert audit.title is not None
    assert audit.title.startswith("Rank 3: random audit;")


def test_very_many_regions_become_one_shape_of_each_kind(
    made: Made, round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_map, "MOST_TITLES", 2)
    scene = made.scenes["north"]
    drawn = draw_scene(round_, scene, regions_of(scene), made.classes, longest=SIDE)
    assert [(item.path.count("M"), item.title, item.audit) for item in drawn.outlines] == [
        (2, None, False),
        (1, None, True),
    ]


def test_the_bar_is_long_on_the_ground_and_local_scenes_have_none(
    made: Made, round_: Round
) -> None:
    scene = made.scenes["north"]
    bar = draw_scene(round_, scene, [], made.classes, longest=SIDE).bar
    assert bar is not None
    assert bar.metres == 200
    assert bar.share == pytest.approx(200 / 960, rel=1e-3)
    local = replace(scene, local=True)
    assert draw_scene(round_, local, [], made.classes, longest=SIDE).bar is None


def test_a_layer_without_a_raster_is_named(made: Made, tmp_path: Path) -> None:
    copy = make_run(tmp_path, scenes=("north",))
    round_ = query_round(copy)
    round_.raster("north", "view").unlink()
    drawn = draw_scene(round_, copy.scenes["north"], [], copy.classes, longest=SIDE)
    assert drawn.absent == ("image",)
    round_.raster("north", "state").write_bytes(b"no raster")
    with pytest.raises(DataError, match=r"north_state\.tif: cannot be read"):
        draw_scene(round_, copy.scenes["north"], [], copy.classes, longest=SIDE)


def test_maps_keep_within_the_bytes_of_a_page(
    made: Made, round_: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = draw_maps(round_, made.scenes, regions_of(made.scenes["south"]), made.classes)
    assert [item.scene.scene_id for item in both.shown] == ["south", "north"]
    assert (both.left_out, both.shown[0].regions) == ((), 3)
    monkeypatch.setattr(report_map, "MAPS_BYTES", both.shown[0].size + 100)
    one = draw_maps(round_, made.scenes, regions_of(made.scenes["south"]), made.classes)
    assert [item.scene.scene_id for item in one.shown] == ["south"]
    assert one.left_out == ("north",)


def test_the_ramp_runs_from_none_to_certain() -> None:
    stops = error_stops()
    assert [place for place, _ in stops] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    light = [sum(rgb(color)) for _, color in stops]
    assert light == sorted(light)
