"""The oracle knows the truth, and errs only as it is told to."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.windows import Window
from scipy import ndimage

from geohsal.geo.scene import QueryRegion
from geohsal.query.oracle import OracleNoise, answer_region


def region_of(mask: np.ndarray) -> QueryRegion:
    height, width = mask.shape
    return QueryRegion(
        region_id="north_r000000_c000000",
        scene_id="north",
        round=0,
        rank=1,
        cell=Window(0, 0, width, height),
        mask=mask,
        score=1.0,
        reason="",
        error_probability=0.5,
        undecided_share=0.5,
        teacher_class=0,
        plar_class=None,
        margin=0.0,
        area_m2=None,
        cost_min=1.0,
        audit=False,
    )


def ask(mask: np.ndarray, truth: np.ndarray, seed: int = 0, **faults: float):
    return answer_region(
        region_of(mask),
        truth,
        num_classes=4,
        noise=OracleNoise(**faults),
        rng=np.random.default_rng(seed),
    )


def quarters() -> np.ndarray:
    return np.kron(np.array([[0, 1], [2, 3]], np.uint8), np.ones((16, 16), np.uint8))


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(
    SHAPES.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.bool_, shape),
            hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])),
        )
    )
)
def test_without_faults_it_tells_the_truth_inside_the_region(case) -> None:
    mask, truth = case
    given_answer = ask(mask, truth)
    assert np.array_equal(given_answer.classes, np.where(mask, truth, 255))
    known = (mask & (truth != 255)).any()
    assert given_answer.status == ("done" if known else "unsure")


def test_a_skipped_region_says_nothing() -> None:
    truth = quarters()
    answers = [ask(truth < 9, truth, seed, skip=0.3) for seed in range(200)]
    skipped = [item for item in answers if item.status == "skipped"]
    assert 40 < len(skipped) < 80
    assert all((item.classes == 255).all() for item in skipped)


def test_wrong_names_go_to_whole_patches() -> None:
    truth = quarters()
    wrong = 0
    for seed in range(100):
        classes = ask(truth < 9, truth, seed, label=0.25).classes
        for quarter in range(4):
            found = np.unique(classes[truth == quarter])
            assert len(found) == 1
            assert found[0] < 4
            wrong += int(found[0] != quarter)
    assert 70 < wrong < 130
    assert (ask(truth < 9, truth, label=1.0).classes != truth).all()


def test_sloppy_borders_move_by_at_most_so_many_pixels() -> None:
    truth = quarters()
    border = ndimage.maximum_filter(truth, 3) != ndimage.minimum_filter(truth, 3)
    away = ndimage.distance_transform_cdt(~border, "chessboard")
    moved = np.zeros(truth.shape, bool)
    for seed in range(20):
        moved |= ask(truth < 9, truth, seed, slop_px=3).classes != truth
    assert moved.any()
    assert away[moved].max() <= 3


@given(hnp.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 1, 255])), st.integers(0, 99))
def test_sloppiness_neither_makes_nor_fills_gaps(truth: np.ndarray, seed: int) -> None:
    classes = ask(np.ones(truth.shape, bool), truth, seed, slop_px=2).classes
    assert np.array_equal(classes == 255, truth == 255)


def test_the_same_seed_gives_the_same_answer() -> None:
    truth = quarters()
    faults = {"label": 0.5, "slop_px": 2.0}
    one, other = (ask(truth < 9, truth, 7, **faults).classes for _ in range(2))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("faults", [{"label": 1.5}, {"skip": -0.1}, {"slop_px": -1}])
def test_shares_outside_their_range_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"noise must be shares in \[0, 1\] and pixels from 0"):
        OracleNoise(**faults)
