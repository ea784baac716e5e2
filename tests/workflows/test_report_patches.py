"""Examples of corrections: the right pixels, the largest of every class first, and why."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_factory import PATCHES, SIDE, Made, make_run, query_round, train_round

from geohsal.geo.scene import Scene
from geohsal.geo.states import PixelState
from geohsal.io.atomic import read_json
from geohsal.io.cog import write_cog
from geohsal.io.run import Round
from geohsal.workflows import report_patches
from geohsal.workflows.report_patches import Correction, corrections, find, in_turn, show
from geohsal.workflows.report_reasons import limit_rows, why_abstaining, why_corrected


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One scene, queried."""
    made = make_run(tmp_path_factory.mktemp("patches"), scenes=("north",))
    train_round(made)
    query_round(made)
    return made


@pytest.fixture
def round_(made: Made) -> Round:
    return made.run.round(0)


@pytest.fixture
def scene(made: Made) -> Scene:
    return made.scenes["north"]


def test_patches_are_found_whole(made: Made, round_: Round, scene: Scene) -> None:
    found = find(round_, scene)
    assert {patch.class_id: patch.pixels for patch in found} == {1: 60, 3: 144}
    box = next(patch.box for patch in found if patch.class_id == 3)
    assert (box.row_off, box.col_off, box.height, box.width) == (40, 10, 12, 12)


def test_every_class_has_its_turn(round_: Round, scene: Scene) -> None:
    one, three = sorted(find(round_, scene), key=lambda patch: patch.class_id)
    small, tiny = (replace(three, pixels=size) for size in (9, 4))
    assert in_turn([tiny, one, small, three]) == [three, one, small, tiny]
    assert in_turn([]) == []


def test_a_patch_shows_what_it_was_and_became(made: Made, round_: Round, scene: Scene) -> None:
    large, small = corrections(round_, [scene], made.classes)
    assert (large.teacher, large.refined, large.pixels) == (0, 3, 144)
    assert (large.row, large.col, large.cut) == (40, 10, False)
    assert large.error == pytest.approx(0.75)
    assert (large.width, large.height) == (34, 36)  # 12 on each side, as far as the scene goes
    corners = {"10 12", "10 24", "22 24", "22 12"}
    assert set(large.outline.strip("MZ").split("L")) == corners
    assert (small.refined, small.pixels) == (1, 60)
    assert len({large.image, large.before, large.after}) == 3


def test_large_scenes_are_searched_coarsely_and_counted_finely(
    made: Made, round_: Round, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_patches, "SEARCH_PX", SIDE // 4)
    found = find(round_, scene)
    assert {patch.class_id: patch.pixels for patch in found} == {1: 32, 3: 144}
    assert [item.pixels for item in corrections(round_, [scene], made.classes)] == [144, 60]


def test_a_patch_that_goes_on_says_so(
    made: Made, round_: Round, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_patches, "LARGEST_PX", 10)
    large = corrections(round_, [scene], made.classes)[0]
    assert large.cut
    assert large.pixels < 144
    assert max(large.width, large.height) <= 10


def test_what_is_not_there_at_full_scale_is_not_shown(
    made: Made, round_: Round, scene: Scene
) -> None:
    patch = replace(find(round_, scene)[0], class_id=2)
    assert show(round_, scene, patch, made.classes) is None


def test_without_a_correction_there_is_no_example(made: Made, tmp_path: Path) -> None:
    copy = make_run(tmp_path, scenes=("north",))
    round_ = query_round(copy)
    trusted = np.full((SIDE, SIDE), PixelState.TRUSTED, np.uint8)
    path = round_.raster("north", "state")
    write_cog(path, trusted, scene=copy.scenes["north"], nodata=0, band_names=("state",))
    assert corrections(round_, [copy.scenes["north"]], copy.classes) == ()
    path.unlink()
    assert corrections(round_, [copy.scenes["north"]], copy.classes) == ()


def test_without_a_picture_or_error_the_classes_still_show(made: Made, tmp_path: Path) -> None:
    copy = make_run(tmp_path, scenes=("north",))
    round_ = query_round(copy)
    for kind in ("view", "error"):
        round_.raster("north", kind).unlink()  # type: ignore[arg-type]
    found = corrections(round_, [copy.scenes["north"]], copy.classes)
    assert [(item.image, item.error) for item in found] == [(None, None)] * len(PATCHES)


# --- why ----------------------------------------------------------------------------------------


@pytest.fixture
def passport(round_: Round) -> dict[str, Any]:
    found: dict[str, Any] = read_json(round_.model_json)
    return found


@pytest.fixture
def patch(made: Made, round_: Round, scene: Scene) -> Correction:
    return corrections(round_, [scene], made.classes)[0]


def with_rule(passport: Mapping[str, Any], rule: str) -> dict[str, Any]:
    return {**passport, "config": {"plar": {"rule": rule, "neighbours": 16}}}


START = "The teacher said woodland, the error probability here is 0.75 on average"


@pytest.mark.parametrize(
    ("rule", "class_id", "words"),
    [
        (
            "robust",
            3,
            "the statistics of the labelled pixels rank arable land first by the margin of 12.5 "
            "or more, and the pixels lie within the distance gate of arable land, 12.5.",
        ),
        (
            "robust",
            1,
            "the statistics of the labelled pixels rank built-up first by the margin of 12.5 or "
            "more, and for want of a distance gate, all three rankings had to agree on built-up.",
        ),
        (
            "knn",
            1,
            "the 16 nearest labelled pixels vote for built-up by the margin of 12.5 or more, and "
            "for want of a distance gate, the nearest labelled pixel had to be built-up.",
        ),
        (
            "faithful",
            3,
            "both distances to the labelled pixels rank arable land first, and the pixels lie "
            "within the distance gate of arable land, 12.5.",
        ),
    ],
)
def test_the_sentence_follows_the_rule(
    made: Made, passport: dict[str, Any], patch: Correction, rule: str, class_id: int, words: str
) -> None:
    item = replace(patch, refined=class_id)
    said = why_corrected(item, made.classes, with_rule(passport, rule))
    assert said == f"{START}, and PLAR looks where it is 0.50 or more; {words}"


@pytest.mark.parametrize("broken", [{}, {"thresholds": {}}, {"thresholds": 3, "config": None}])
def test_a_record_that_does_not_say_why_is_said_so(
    made: Made, patch: Correction, broken: dict[str, Any]
) -> None:
    assert why_corrected(patch, made.classes, broken) == (
        f"{START}; model.json of the round does not say why."
    )
    assert why_abstaining(made.classes, broken) is None
    assert limit_rows([3], made.classes, broken) == []


def test_limits_name_where_they_come_from(made: Made, passport: dict[str, Any]) -> None:
    source = "calibrated: 9 regions <withheld>"
    assert limit_rows([1, 3], made.classes, passport) == [
        ("suspect from", "0.50", source),
        ("margin of built-up", "12.50", source),
        ("distance gate of built-up", "none", "agreement: 2 regions do not make a gate"),
        ("corrections to built-up", "allowed", "no evidence: 0 flips"),
        ("margin of arable land", "12.50", source),
        ("distance gate of arable land", "12.50", source),
        ("corrections to arable land", "allowed", "no evidence: 0 flips"),
    ]
    assert len(limit_rows([3], made.classes, with_rule(passport, "faithful"))) == 3


def test_classes_left_alone_are_named_with_why(made: Made, passport: dict[str, Any]) -> None:
    assert why_abstaining(made.classes, passport) == {"water": "no evidence: 0 flips"}
