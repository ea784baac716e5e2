"""Acquisition maps: formulas by hand, nothing asked where nothing can be, draws tied to places."""

from collections.abc import Callable

import numpy as np
import pytest

from geohsal.config import QueryConfig
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query.acquisition import ACQUISITIONS
from geohsal.query.draws import cell_draws
from geohsal.query.evidence import PixelEvidence, class_weights

EvidenceFactory = Callable[..., PixelEvidence]

EVERY_STATE = [[int(state) for state in PixelState]]


def test_plar_is_the_formula_of_the_method(make_evidence: EvidenceFactory) -> None:
    S = PixelState
    evidence = make_evidence(
        [[S.AMBIGUOUS, S.NOVEL, S.TRUSTED, S.TRUSTED, S.CONFIRMED, S.LABELLED, S.NODATA]],
        teacher=np.array([[0, 1, 0, 0, 0, 0, IGNORE_INDEX]], dtype=np.uint8),
        error=np.array([[0.8, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9]], dtype=np.float32),
        disagree=np.array([[True, True, True, False, True, True, True]]),
        class_weight=np.array([2.0, 0.5, 1.0]),
    )
    score = ACQUISITIONS["plar"].score(evidence, QueryConfig())
    expected = [[0.8 * 2.0, 0.5 * 1.5 * 0.5, 0.25, 0, 0, 0, 0]]
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    assert score.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entropy", 0.5),
        ("margin", 0.75),
        ("least_confidence", 0.25),
        ("emd", 0.5),
        ("bald", 0.125),
        ("badge", 0.25),
        ("coreset", 1),
        ("random", 1),
    ],
)
def test_baselines_score_what_can_be_asked(
    make_evidence: EvidenceFactory, name: str, value: float
) -> None:
    score = ACQUISITIONS[name].score(make_evidence(EVERY_STATE), QueryConfig(strategy=name))
    np.testing.assert_allclose(score, [[0, 0] + [value] * 5])


def test_nothing_is_scored_where_nothing_can_be_asked(make_evidence: EvidenceFactory) -> None:
    for name, strategy in ACQUISITIONS.items():
        score = strategy.score(make_evidence(EVERY_STATE), QueryConfig(strategy=name))
        assert score.shape == (1, 7)
        assert score.dtype == np.float32
        assert not score[0, : PixelState.TRUSTED].any()


def test_draws_are_uniform() -> None:
    grid = np.arange(100)
    draws = cell_draws("north", grid[:, None], cols=grid[None, :], seed=3, purpose="audit")
    counts = np.histogram(draws, bins=10, range=(0, 1))[0]
    assert counts.sum() == 10_000
    assert np.abs(counts - 1000).max() < 150  # five standard deviations
    assert abs(np.corrcoef(draws[:, :-1].ravel(), draws[:, 1:].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([100, 100, 100], [1, 1, 1]),
        ([100, 400, 25], [1, 0.5, 2]),
        ([1, 100, 10_000], [4, 1, 0.5]),
        ([0, 100, 100], [4, 1, 1]),
        ([0, 0, 0], [1, 1, 1]),
    ],
)
def test_class_weights_favour_rare_classes_within_bounds(
    pixels: list[int], expected: list[float]
) -> None:
    np.testing.assert_allclose(class_weights(np.array(pixels)), expected)
