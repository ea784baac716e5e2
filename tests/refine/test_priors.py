"""Class shares of the pool, and the shift of the logits that follows from them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geohsal.config import PriorConfig
from geohsal.refine.priors import (
    FLOOR,
    TRUST_REGIONS,
    AnsweredRound,
    PoolPriors,
    known_priors,
    prior_shift,
    priors_by_em,
    priors_from_answers,
)


def answered(predicted, table, regions) -> AnsweredRound:  # type: ignore[no-untyped-def]
    return AnsweredRound(predicted=np.array(predicted), answered=np.array(table), regions=regions)


def test_shares_are_those_of_the_answers_within_each_stratum() -> None:
    # 12 regions of 100 px; stratum 0 (80 % of the pool) was answered by 9 regions, a third wrong
    found = priors_from_answers([answered([8000, 2000], [[600, 300], [0, 300]], 12)], min_regions=1)
    first = (6 + TRUST_REGIONS) / (9 + TRUST_REGIONS)  # what stratum 0 really is of class 0
    assert found.share is not None
    assert found.share == pytest.approx([0.8 * first, 1 - 0.8 * first])
    assert found.source == "answers"


def test_a_biased_choice_of_regions_does_not_bias_the_shares_of_right_strata() -> None:
    # the query asked three times as often about the rare stratum; both were named rightly
    found = priors_from_answers([answered([9500, 500], [[100, 0], [0, 300]], 4)], min_regions=1)
    assert found.share == pytest.approx([0.95, 0.05])


def test_rounds_count_by_their_regions() -> None:
    one = answered([100, 0], [[100, 0], [0, 0]], 1)
    three = answered([0, 100], [[0, 0], [0, 300]], 3)
    found = priors_from_answers([one, three], min_regions=1)
    assert found.share == pytest.approx([0.25, 0.75])


def test_too_few_regions_shift_nothing_and_say_so() -> None:
    found = priors_from_answers([answered([10, 10], [[5, 0], [0, 5]], 2)], min_regions=3)
    assert found.share is None
    assert found.reason == "2 answered regions, 3 are needed"
    none = prior_shift(
        found, np.array([0.5, 0.5]), labelled=np.array([True, True]), config=PriorConfig()
    )
    assert none.tolist() == [0.0, 0.0]


@given(
    st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(sum),
    st.lists(st.integers(0, 500), min_size=9, max_size=9),
    st.integers(1, 50),
)
def test_shares_are_shares(predicted: list[int], table: list[int], regions: int) -> None:
    found = priors_from_answers(
        [answered(predicted, np.reshape(table, (3, 3)), regions)], min_regions=1
    )
    assert found.share is not None
    assert found.share.sum() == pytest.approx(1)
    assert (found.share >= 0).all()


def test_the_shift_is_the_log_ratio_times_strength_and_free_of_mean() -> None:
    share, taught = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])
    priors = PoolPriors(share=share, source="answers", reason="")
    everything = np.ones(3, dtype=np.bool_)
    half = prior_shift(priors, taught, labelled=everything, config=PriorConfig(strength=0.5))
    whole = prior_shift(priors, taught, labelled=everything, config=PriorConfig(strength=1.0))
    assert half.sum() == pytest.approx(0)
    assert whole == pytest.approx(2 * half)
    expected = np.log(share + FLOOR) - np.log(taught + FLOOR)
    assert whole[0] - whole[2] == pytest.approx(expected[0] - expected[2])


def test_a_class_without_labels_is_not_shifted() -> None:
    priors = PoolPriors(share=np.array([0.5, 0.5, 0.0]), source="answers", reason="")
    shift = prior_shift(
        priors,
        np.array([0.9, 0.1, 0.0]),
        labelled=np.array([True, True, False]),
        config=PriorConfig(),
    )
    assert shift[2] == 0
    assert shift[1] > 0 > shift[0]


def test_even_shares_take_what_was_taught_out_of_the_logits() -> None:
    taught, everything = np.array([0.90, 0.08, 0.02]), np.ones(3, dtype=np.bool_)
    rng = np.random.default_rng(0)
    likelihood = rng.random((50, 3))
    posterior = np.log(likelihood * taught)
    config = PriorConfig(source="uniform", strength=1.0)
    even = known_priors(config, [], classes=3)
    whole = prior_shift(even, taught, labelled=everything, config=config)
    assert whole.sum() == pytest.approx(0)
    # up to the floor of shares, that of a rare class first
    assert whole == pytest.approx(np.log(1 / taught) - np.log(1 / taught).mean(), abs=0.2)
    found = (posterior + whole).argmax(axis=1)
    assert (found == likelihood.argmax(axis=1)).mean() > 0.8
    assert (posterior.argmax(axis=1) == likelihood.argmax(axis=1)).mean() < 0.6


def test_even_shares_leave_a_class_without_labels_alone() -> None:
    taught = np.array([0.9, 0.1, 0.0])
    labelled = np.array([True, True, False])
    config = PriorConfig(source="uniform")
    even = known_priors(config, [], classes=3)
    shift = prior_shift(even, taught, labelled=labelled, config=config)
    assert shift[2] == 0
    assert shift[1] > 0 > shift[0]


@pytest.mark.parametrize("source", ["none", "em"])
def test_where_nothing_is_known_without_a_look_nothing_is_shifted(source: str) -> None:
    config = PriorConfig(source=source)  # type: ignore[arg-type]
    found = known_priors(config, [answered([9, 1], [[5, 0], [0, 5]], 20)], classes=2)
    assert found.share is None


def test_em_finds_the_shares_of_a_pool_that_only_its_shares_set_apart() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([0.85, 0.15])
    label = rng.choice(2, size=4000, p=truth)
    score = rng.normal(np.where(label == 1, 1.0, -1.0))  # posteriors under even shares
    one = 1 / (1 + np.exp(-2 * score))
    found = priors_by_em(np.stack([1 - one, one], axis=1), np.array([0.5, 0.5]))
    assert found.share == pytest.approx(truth, abs=0.03)
