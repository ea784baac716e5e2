"""What a reviewer's time costs: learned from time stamps, robustly, within bounds."""

import numpy as np
import pytest

from geohsal.config import CostConfig
from geohsal.query.agreement import agreement
from geohsal.query.costs import (
    FEWEST_TIMED,
    LONGEST_GAP_S,
    PER_ANSWER_S,
    PER_REGION_S,
    Review,
    gaps,
    learn_prices,
)

CONFIG = CostConfig()


def stamped(
    seconds: list[float], answers: list[int | None], *, reviewer: str = "Ada", start: int = 0
) -> list[Review]:
    """Reviews one after the other; the first stamp only starts the clock."""
    stamps = start + np.concatenate([[0], np.cumsum(seconds)]) * 1000
    return [
        Review(reviewer=reviewer, reviewed_ms=int(stamp), answers=count)
        for stamp, count in zip(stamps, [1, *answers], strict=True)
    ]


def truth(per_region: float, per_answer: float, *, count: int = 60, noise: float = 0.0, seed=0):
    rng = np.random.default_rng(seed)
    answers = rng.integers(1, 6, count)
    seconds = (per_region + per_answer * answers) * np.exp(noise * rng.normal(size=count))
    return seconds, answers.tolist()


def test_prices_are_recovered_from_clean_stamps() -> None:
    seconds, answers = truth(31, 8)
    prices = learn_prices(stamped(list(seconds), answers), CONFIG)
    assert (prices.seconds_per_region, prices.seconds_per_answer) == pytest.approx((31, 8), abs=0.1)
    assert str(prices) == "31 s per region and 8 s per answer, learned from 60 regions"


@pytest.mark.parametrize("seed", range(5))
def test_breaks_bulk_edits_and_scatter_change_little(seed: int) -> None:
    seconds, answers = truth(25, 6, count=120, noise=0.2, seed=seed)
    rng = np.random.default_rng(seed)
    odd = rng.random(120)
    seconds[odd < 0.08] = 500  # coffee, below the limit
    seconds[(odd > 0.08) & (odd < 0.12)] = 5000  # lunch
    seconds[odd > 0.95] = 0.05  # ticked off together
    prices = learn_prices(stamped(list(seconds), answers), CONFIG)
    for count in (1, 3, 5):
        learned = prices.seconds_per_region + prices.seconds_per_answer * count
        assert learned == pytest.approx(25 + 6 * count, rel=0.25)


def test_too_few_stamps_leave_the_settings() -> None:
    seconds, answers = truth(90, 30, count=FEWEST_TIMED - 1)
    prices = learn_prices(stamped(list(seconds), answers), CONFIG)
    assert (prices.seconds_per_region, prices.seconds_per_answer) == (20, 5)
    assert str(prices) == (
        "20 s per region and 5 s per answer, by the settings (11 of 12 timed regions so far)"
    )
    assert learn_prices([], CONFIG).over(CONFIG) == CONFIG


def test_learning_can_be_switched_off() -> None:
    seconds, answers = truth(90, 30)
    prices = learn_prices(stamped(list(seconds), answers), CostConfig(learn=False))
    assert not prices.learned
    assert prices.seconds_per_region == 20


def test_equal_regions_keep_the_ratio_of_the_settings() -> None:
    prices = learn_prices(stamped([60.0] * 20, [2] * 20), CONFIG)
    assert prices.seconds_per_answer == pytest.approx(10)
    assert prices.seconds_per_region == pytest.approx(40)


def test_prices_stay_within_bounds() -> None:
    fast = learn_prices(stamped([1.5] * 20, [n % 5 + 1 for n in range(20)]), CONFIG)
    assert fast.seconds_per_region == PER_REGION_S[0]
    assert fast.seconds_per_answer == PER_ANSWER_S[0]
    dear = CostConfig(seconds_per_answer=20)
    slow = learn_prices(stamped([598.0] * 20, [1] * 20), dear)
    assert slow.seconds_per_answer == PER_ANSWER_S[1]
    assert slow.seconds_per_region == PER_REGION_S[1]


def test_gaps_are_between_one_reviewers_stamps() -> None:
    ada = stamped([30, LONGEST_GAP_S + 1, 40, 0.2], [1, 1, 1, 1])
    bob = stamped([50], [1], reviewer="Bob", start=10_000)
    assert [(item.reviewer, gap) for item, gap in gaps([*bob, *ada])] == [
        ("Ada", 30.0),
        ("Ada", 40.0),
        ("Bob", 50.0),
    ]


def test_skipped_regions_stop_the_clock_and_teach_nothing() -> None:
    seconds, answers = truth(31, 8, count=30)
    mixed = stamped(
        [s for pair in seconds for s in (4, pair)], [a for n in answers for a in (None, n)]
    )
    prices = learn_prices(mixed, CONFIG)
    assert prices.regions == 30
    assert prices.seconds_per_region == pytest.approx(31, abs=0.1)


def test_kappa_is_that_of_the_textbook() -> None:
    one = np.repeat(np.array([0, 0, 1, 1], dtype=np.uint8), [20, 5, 10, 15])[None]
    other = np.repeat(np.array([0, 1, 0, 1], dtype=np.uint8), [20, 5, 10, 15])[None]
    found = agreement("a", "b", [(one, other)], num_classes=3)
    assert found.kappa == pytest.approx(0.4)
    assert found.confusion == ((20, 5, 0), (10, 15, 0), (0, 0, 0))
    assert (found.pixels, found.agreed, found.regions) == (50, 35, 1)


def test_kappa_is_undefined_where_there_is_nothing_to_tell_apart() -> None:
    water = np.zeros((4, 4), dtype=np.uint8)
    unknown = np.full((4, 4), 255, dtype=np.uint8)
    assert agreement("a", "b", [(water, water)], num_classes=2).kappa is None
    nothing = agreement("a", "b", [(water, unknown)], num_classes=2)
    assert (nothing.kappa, nothing.pixels) == (None, 0)
