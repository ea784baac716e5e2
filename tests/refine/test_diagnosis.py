"""Diagnostics against hand counts, against scikit-learn, and however the pixels are cut up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from geohsal.geo.states import PixelState
from geohsal.refine import error_mask
from geohsal.refine.diagnosis import (
    CONFIDENT,
    JudgedPixels,
    count_pixels,
    diagnosis,
    no_counts,
)
from geohsal.refine.evidence import calibration_error
from geohsal.refine.region_share import region_share

T, OK, FIX = PixelState.TRUSTED, PixelState.CONFIRMED, PixelState.CORRECTED
ASK, NEW, SAID, NONE = (
    PixelState.AMBIGUOUS,
    PixelState.NOVEL,
    PixelState.LABELLED,
    PixelState.NODATA,
)


def judged(**changes) -> JudgedPixels:
    """Ten pixels of two regions; the last two do not count."""
    values = {
        #           region 7                  region 9
        "teacher": [0, 0, 1, 1, 2, 2, 2, 0, 1, 0],
        "refined": [0, 1, 0, 0, 2, 2, 2, 0, 1, 0],
        "state": [T, FIX, FIX, FIX, OK, OK, ASK, NEW, SAID, NONE],
        "reference": [0, 1, 1, 2, 2, 0, 0, 255, 1, 0],
        "confidence": [0.95, 0.5, 0.9, 0.4, 0.99, 0.3, 0.2, 0.1, 1, 0],
        "error": [0.1, 0.9, 0.7, 0.8, 0.2, 0.6, 0.5, 0.5, 0, 0],
        "region": [7, 7, 7, 7, 9, 9, 9, 9, 9, 9],
        "disagree": [0, 1, 0, 1, 0, 0, 0, 1, 1, 1],
    } | changes
    kinds = {"confidence": np.float32, "error": np.float32, "region": np.int64, "disagree": bool}
    return JudgedPixels(**{k: np.asarray(v, kinds.get(k, np.uint8)) for k, v in values.items()})


def test_every_figure_of_a_small_round_by_hand():
    found = diagnosis(count_pixels(judged(), num_classes=3))
    assert (found.pixels, found.regions) == (7, 2)  # 255, LABELLED and NODATA left out
    assert found.teacher is not None
    assert (found.teacher.hits, found.teacher.pixels) == (3, 7)  # pixels 0, 2 and 4
    assert found.error_rate == pytest.approx(4 / 7)
    assert found.refined is not None
    assert found.refined.hits == 3  # 0, 1 and 4
    plar = found.plar
    assert plar.right == (0, 1, 0)  # pixel 1 became true
    assert plar.wrong == (1, 0, 0)  # pixel 2 had been true
    assert plar.neutral == (1, 0, 0)  # pixel 3: neither 1 nor 0 is 2
    assert plar.net_gain == 0
    assert (plar.confirmed_right, plar.confirmed_wrong) == ((0, 0, 1), (0, 0, 1))
    assert plar.corrected is not None
    assert (plar.corrected.hits, plar.corrected.pixels, plar.corrected.regions) == (1, 3, 1)
    assert plar.confirmed is not None
    assert plar.confirmed.share == 0.5
    assert found.states == {
        "TRUSTED": pytest.approx(1 / 7),
        "CONFIRMED": pytest.approx(2 / 7),
        "CORRECTED": pytest.approx(3 / 7),
        "AMBIGUOUS": pytest.approx(1 / 7),
        "NOVEL": 0,
    }
    assert found.friend_disagreement == pytest.approx(2 / 7)
    # wrong: 0.9 0.8 0.6 0.5, right: 0.1 0.7 0.2; two of twelve pairs are in the wrong order
    assert found.error_mask.auroc == pytest.approx(10 / 12)
    assert found.error_mask.errors == 4
    # precision where each wrong pixel is found: 1/1, 2/2, 3/4, 4/5
    assert found.error_mask.aupr == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)
    assert (found.confident.pixels, found.confident.errors, found.confident.auroc) == (3, 0, None)
    assert found.confident.ece == pytest.approx((0.1 + 0.7 + 0.2) / 3, abs=1e-5)
    assert [bin_.pixels for bin_ in found.confident.reliability] == [1, 1, 1]


def test_nothing_known_gives_none_and_divides_by_nothing():
    for counts in (
        no_counts(3),
        count_pixels(judged(reference=[255] * 10), num_classes=3),
        count_pixels(judged(state=[NONE] * 10), num_classes=3),
    ):
        found = diagnosis(counts)
        assert (found.pixels, found.regions) == (0, 0)
        assert found.teacher is found.refined is found.error_rate is None
        assert found.plar.corrected is found.plar.confirmed is None
        assert found.error_mask.auroc is found.error_mask.aupr is found.error_mask.ece is None
        assert set(found.states.values()) == {None}
        assert found.friend_disagreement is None
    unknown = judged()
    values = {name: getattr(unknown, name) for name in JudgedPixels.__dataclass_fields__}
    alone = JudgedPixels(**values | {"disagree": None})
    assert diagnosis(count_pixels(alone, num_classes=3)).friend_disagreement is None


def test_confident_means_the_same_everywhere():
    assert CONFIDENT == error_mask.CONFIDENT


def random_round(rng: np.random.Generator, count: int, first_region: int = 0) -> JudgedPixels:
    reference = rng.integers(0, 4, count)
    reference[rng.random(count) < 0.1] = 255
    wrong = rng.random(count)
    teacher = np.where(wrong > 0.7, rng.integers(0, 4, count), reference % 4)
    return judged(
        teacher=teacher,
        refined=rng.integers(0, 4, count),
        state=rng.integers(0, 7, count),
        reference=reference,
        confidence=rng.random(count),
        error=np.clip(wrong * 0.6 + rng.random(count) * 0.4, 0, 1),
        region=first_region + rng.integers(0, 5, count),
        disagree=rng.random(count) < 0.3,
    )


def test_the_histogram_is_as_good_as_the_exact_ranking():
    pixels = random_round(np.random.default_rng(3), 40_000)
    found = diagnosis(count_pixels(pixels, num_classes=4)).error_mask
    known = (pixels.reference < 4) & (pixels.state > SAID)
    wrong = (pixels.teacher != pixels.reference)[known]
    error = pixels.error[known]
    assert found.auroc == pytest.approx(roc_auc_score(wrong, error), abs=0.5 / 4096)
    assert found.aupr == pytest.approx(average_precision_score(wrong, error), abs=1e-3)
    assert found.ece == pytest.approx(calibration_error(error, wrong), abs=1e-5)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_pieces_may_be_merged_in_any_grouping(seed, sizes):
    rng = np.random.default_rng(seed)
    rounds = [random_round(rng, size, 10 * place) for place, size in enumerate(sizes)]
    one, two, three = (count_pixels(pixels, num_classes=4) for pixels in rounds)
    left, right = one.merge(two).merge(three), one.merge(two.merge(three))
    whole = count_pixels(
        JudgedPixels(
            **{
                name: np.concatenate([getattr(pixels, name) for pixels in rounds])
                for name in JudgedPixels.__dataclass_fields__
            }
        ),
        num_classes=4,
    )
    assert diagnosis(left) == diagnosis(right) == diagnosis(whole)
    assert diagnosis(no_counts(4).merge(left)) == diagnosis(left)


def test_the_unit_of_evidence_is_the_region():
    one = region_share([300], [1000])
    many = region_share([30] * 10, [100] * 10)
    uneven = region_share([100, 100, 100] + [0] * 7, [100] * 10)
    assert one is not None
    assert many is not None
    assert uneven is not None
    assert one.share == many.share == uneven.share == 0.3
    assert one.high - one.low > 0.7  # one region is one accident
    assert one.high - one.low > uneven.high - uneven.low > many.high - many.low > 0.3
    none = region_share([0] * 5, [500] * 5)
    assert none is not None
    assert none.low == 0
    assert none.high == pytest.approx(3.8415 / (5 + 3.8415), abs=1e-4)  # Wilson of 0 of 5
    assert region_share([], []) is None
    assert region_share([0, 0], [0, 0]) is None
    assert region_share([1, 0], [4, 0]) == region_share([1], [4])


@pytest.mark.parametrize("regions", [5, 20])
@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_interval_holds_what_it_promises_where_regions_differ(regions, share):
    """Errors clump in regions (share of variance between them: 0.5); nominal 95 %."""
    rng = np.random.default_rng([regions, int(100 * share)])
    inside = 0
    for _ in range(300):
        rates = rng.beta(share, 1 - share, regions)
        pixels = rng.integers(500, 1025, regions)
        found = region_share(rng.binomial(pixels, rates), pixels)
        assert found is not None
        inside += found.low <= share <= found.high
    assert inside / 300 > 0.93
