"""Built-in strategies by hand and against plain references; plugins; unknown names."""

import textwrap
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geohsal.config import QueryConfig, config_from_dict
from geohsal.errors import ConfigError
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query import acquisition as registry
from geohsal.query.acquisition import ACQUISITIONS, acquisition
from geohsal.query.evidence import PixelEvidence
from geohsal.query.feature_sums import (
    EMBEDDING_DIMENSIONS,
    merge_sums,
    projection,
    sum_features,
    sum_gradients,
)
from geohsal.query.regions import Candidates
from geohsal.query.selection import Selection

EvidenceFactory = Callable[..., PixelEvidence]
CandidatesFactory = Callable[..., Candidates]
Choose = Callable[..., Selection]


def alone(strategy: str, **given: Any) -> QueryConfig:
    """Settings under which nothing but the strategy decides."""
    return QueryConfig(strategy=strategy, audit_share=0, exclusion=0, tile_cap=1, **given)


def line(count: int) -> list[tuple[str, int, int]]:
    return [("north", 0, col) for col in range(count)]


# --- ripu ----------------------------------------------------------------------------------------


def ripu_reference(
    teacher: NDArray[np.uint8], entropy: NDArray[np.float32], *, side: int, classes: int
) -> NDArray[np.float64]:
    """Impurity times mean entropy, one window at a time."""
    half, score = side // 2, np.zeros(teacher.shape)
    for row, col in np.ndindex(*teacher.shape):
        at = (
            slice(max(0, row - half), row + half + 1),
            slice(max(0, col - half), col + half + 1),
        )
        valid = teacher[at] != IGNORE_INDEX
        if valid.any():
            shares = np.bincount(teacher[at][valid], minlength=classes) / valid.sum()
            shares = shares[shares > 0]
            impurity = -(shares * np.log(shares)).sum() / np.log(classes)
            score[row, col] = impurity * entropy[at][valid].mean()
    return score


@pytest.mark.parametrize("side", [3, 7])
def test_ripu_is_impurity_times_mean_entropy(make_evidence: EvidenceFactory, side: int) -> None:
    rng = np.random.default_rng(side)
    state = rng.integers(0, 7, (20, 17))
    teacher = np.where(state == 0, IGNORE_INDEX, rng.integers(0, 3, (20, 17))).astype(np.uint8)
    entropy = rng.random((20, 17)).astype(np.float32)
    evidence = make_evidence(state, teacher=teacher, entropy=entropy)
    found = ACQUISITIONS["ripu"].score(evidence, QueryConfig(strategy="ripu", ripu_px=side))
    expected = ripu_reference(teacher, entropy, side=side, classes=3)
    asked = ~np.isin(state, (PixelState.NODATA, PixelState.LABELLED))
    np.testing.assert_allclose(found, np.where(asked, expected, 0), atol=1e-5)


def test_ripu_by_hand(make_evidence: EvidenceFactory) -> None:
    evidence = make_evidence(
        np.full((1, 4), PixelState.TRUSTED),
        teacher=np.array([[0, 0, 1, 1]], dtype=np.uint8),
        entropy=np.array([[0.3, 0.6, 0.9, 0.0]], dtype=np.float32),
        class_weight=np.ones(2),
    )
    found = ACQUISITIONS["ripu"].score(evidence, QueryConfig(strategy="ripu"))
    mixed = -(2 / 3 * np.log2(2 / 3) + 1 / 3 * np.log2(1 / 3))
    np.testing.assert_allclose(found, [[0, mixed * 0.6, mixed * 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("side", [3, 7])
def test_ripu_of_a_part_with_its_halo_is_that_of_the_whole(
    make_evidence: EvidenceFactory, side: int
) -> None:
    rng = np.random.default_rng(side)
    config, strategy = QueryConfig(strategy="ripu", ripu_px=side), ACQUISITIONS["ripu"]
    maps = {
        "teacher": rng.choice(np.array([0, 1, 2, IGNORE_INDEX], dtype=np.uint8), (40, 33)),
        "entropy": rng.random((40, 33)).astype(np.float32),
    }
    state = np.full((40, 33), PixelState.TRUSTED)
    whole = strategy.score(make_evidence(state, **maps), config)
    low, high = 13 - strategy.halo(config), 29 + strategy.halo(config)
    cut = {name: values[low:high] for name, values in maps.items()}
    part = strategy.score(make_evidence(state[low:high], **cut), config)
    assert np.array_equal(part[13 - low : 29 - low], whole[13:29])


def test_a_ripu_window_has_a_middle() -> None:
    with pytest.raises(ConfigError, match=r"query: ripu_px must be odd, not 4"):
        config_from_dict({"query": {"ripu_px": 4}}, where="here")
    with pytest.raises(ConfigError, match="region_px must be even where region_unit is window"):
        config_from_dict({"query": {"region_px": 33, "region_unit": "window"}}, where="here")


# --- badge ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [4, 100])
def test_gradients_are_those_of_the_head(features: int) -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.normal(size=(features, 6, 5)).astype(np.float32))
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(3), size=(6, 5))).float()
    numbers = np.arange(30).reshape(6, 5) // 8
    where = rng.random((6, 5)) < 0.8
    found = sum_gradients(values, probabilities.permute(2, 0, 1), numbers, where, seed=7)
    head = torch.nn.Linear(features, 3, bias=False)
    for place, number in enumerate(found.numbers):
        at = torch.from_numpy(where & (numbers == number))
        logits = probabilities[at].log() + head(values[:, at].T) * 0  # softmax gives p back
        logits.retain_grad()
        loss = torch.nn.functional.cross_entropy(
            logits, probabilities[at].argmax(1), reduction="sum"
        )
        loss.backward()
        assert logits.grad is not None
        expected = (logits.grad.T @ values[:, at].T).double().numpy().ravel()
        if len(expected) > EMBEDDING_DIMENSIONS:
            expected = projection(len(expected), seed=7) @ expected
        np.testing.assert_allclose(found.sums[:, place], expected, atol=0.02)
        assert found.pixels[place] == int(at.sum())


def test_projected_distances_are_nearly_kept() -> None:
    points = np.random.default_rng(0).normal(size=(20, 1000))
    seen = points @ projection(1000, seed=3).T / np.sqrt(EMBEDDING_DIMENSIONS)
    before = np.linalg.norm(points[:, None] - points[None], axis=-1)[~np.eye(20, dtype=bool)]
    after = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[~np.eye(20, dtype=bool)]
    assert np.abs(after / before - 1).max() < 0.25


def test_sums_of_parts_are_the_whole_in_any_order() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy((rng.normal(size=(3, 12, 9)) * 1e3).astype(np.float32))
    numbers, where = rng.integers(0, 5, (12, 9)), rng.random((12, 9)) < 0.7
    whole = sum_features(values, numbers, where)
    cuts = [slice(7, 12), slice(0, 4), slice(4, 7)]
    parts = merge_sums([sum_features(values[:, cut], numbers[cut], where[cut]) for cut in cuts])
    np.testing.assert_array_equal(whole.numbers, parts.numbers)
    np.testing.assert_array_equal(whole.pixels, parts.pixels)
    np.testing.assert_array_equal(whole.sums, parts.sums)
    assert not len(sum_features(values, numbers, where & False).numbers)


def kmeans_plus_plus_reference(points: NDArray[np.float64], count: int, seed: int) -> list[int]:
    """Seeding of k-means++ as BADGE does it, in a few plain lines."""
    rng, chosen = np.random.default_rng([seed, 1]), [int(np.argmax((points**2).sum(axis=1)))]
    while len(chosen) < count:
        nearest = np.min([((points - points[c]) ** 2).sum(axis=1) for c in chosen], axis=0)
        edges = np.cumsum(nearest)
        chosen.append(int(np.searchsorted(edges, rng.random() * edges[-1], side="right")))
    return chosen


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_badge_seeds_like_kmeans_plus_plus(
    make_candidates: CandidatesFactory, choose: Choose, seed: int
) -> None:
    points = np.random.default_rng(seed).integers(-8, 9, size=(40, 5)).astype(np.float32)
    candidates = make_candidates(line(40), embeddings=points)
    found = choose(candidates, "8regions", config=alone("badge"), seed=seed)
    expected = kmeans_plus_plus_reference(points.astype(np.float64), 8, seed)
    assert found.chosen.tolist() == expected
    assert found.reasons[0].startswith("unsure in a way of its own: mean confidence")


def test_badge_without_gradients_falls_to_the_lot(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(line(6), embeddings=np.zeros((6, 3)))
    found = choose(candidates, "3regions", config=alone("badge"))
    assert set(found.reasons) == {"fill-in at random"}


# --- coreset -------------------------------------------------------------------------------------


def test_coreset_takes_the_farthest_from_all_that_is_known(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(
        line(6),
        features=[[0, 0], [10, 0], [9, 0], [0, 6], [1, 1], [5, 5]],
        score_sum=[1, 2, 900, 4, 800, 6],
        mean_error=[1, 0, 1, 0, 1, 0],
    )
    found = choose(candidates, "3regions", config=alone("coreset"), labelled=[[0, 0], [1, 0]])
    assert found.chosen.tolist() == [1, 5, 3]  # 9, 6.4 and 5.1 away
    assert set(found.reasons) == {"unlike what is labelled or asked"}
    near = choose(candidates, "2regions", config=alone("coreset"), labelled=[[10, 0], [0, 6]])
    assert near.chosen.tolist() == [0, 5]


def test_coreset_starts_somewhere_without_labels(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(line(3), features=[[0, 0], [1, 0], [5, 0]])
    assert choose(candidates, "2regions", config=alone("coreset")).chosen.tolist() == [0, 2]


# --- what baselines must not have ----------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", ["entropy", "margin", "least_confidence", "bald", "ripu", "emd"]
)
def test_baselines_know_nothing_of_diversity_and_predicted_error(
    make_candidates: CandidatesFactory, choose: Choose, strategy: str
) -> None:
    rng = np.random.default_rng(0)
    scores = rng.permutation(30) + 1.0
    scores[scores <= 10] = 0
    candidates = make_candidates(
        line(30),
        score_sum=scores,
        features=rng.normal(size=(30, 4)),
        mean_error=rng.random(30),
    )
    found = choose(candidates, "25regions", config=alone(strategy))
    assert found.chosen[:20].tolist() == np.argsort(-scores)[:20].tolist()
    assert set(found.reasons[20:]) == {"fill-in at random"}


@pytest.mark.parametrize(
    ("strategy", "aggregate", "best"),
    [
        ("entropy", "strategy", 1),
        ("entropy", "mean", 1),
        ("entropy", "sum", 0),
        ("plar", "strategy", 0),
        ("plar", "mean", 1),
        ("emd", "strategy", 0),
    ],
)
def test_worth_is_the_mean_or_the_sum_per_cost(
    make_candidates: CandidatesFactory, choose: Choose, strategy: str, aggregate: str, best: int
) -> None:
    candidates = make_candidates(line(2), score_sum=[100, 90], pixels=[256, 128])
    config = alone(strategy, aggregate=aggregate)
    found = choose(candidates, "1region", config=config)
    assert found.chosen.tolist() == [best]


# --- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["plar", "random", "coreset", "badge", "entropy"])
def test_windows_that_overlap_are_never_both_chosen(
    make_candidates: CandidatesFactory, choose: Choose, strategy: str
) -> None:
    rng = np.random.default_rng(0)
    cells = [("north", row, col) for row in range(7) for col in range(7)]
    candidates = make_candidates(
        cells,
        unit="window",
        score_sum=rng.random(49),
        features=rng.normal(size=(49, 2)),
        embeddings=rng.normal(size=(49, 2)),
    )
    config = QueryConfig(strategy=strategy, exclusion=0, tile_cap=1)
    found = choose(candidates, "40regions", config=config)
    places = np.column_stack([candidates.row, candidates.col])[found.chosen]
    apart = np.abs(places[:, None] - places[None]).max(axis=-1)
    assert apart[~np.eye(len(found), dtype=bool)].min() >= 2
    assert 9 <= len(found) <= 16
    assert found.notes[-1].endswith("left of 40regions: the whole pool is in the query")
    assert candidates.region_id(8) == "north-w16-r00001-c00001"


# --- names ---------------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError) as raised:
        acquisition("entropie")
    assert str(raised.value) == (
        "query.strategy 'entropie': is not known; use one of plar, random, entropy, margin, "
        "least_confidence, bald, coreset, badge, ripu, emd"
    )
    assert raised.value.exit_code == 2


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "other_strategies.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import replace
            from geohsal.query.acquisition import ACQUISITIONS

            calm = replace(
                ACQUISITIONS["entropy"],
                name="calm",
                score=lambda evidence, config: 1 - evidence.entropy,
                words=lambda value: f"calm by {value:.1f}",
            )
            number = 7
            """
        )
    )
    (tmp_path / "broken_strategy.py").write_text("raise OSError('no licence\\nfound')")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [
        EntryPoint(name, value, registry.GROUP)
        for name, value in (
            ("calm", "other_strategies:calm"),
            ("number", "other_strategies:number"),
            ("broken", "broken_strategy:it"),
            ("entropy", "other_strategies:calm"),
        )
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda *, group: entries if group == registry.GROUP else []
    )


@pytest.mark.usefixtures("plugins")
def test_a_plugin_scores_and_explains(
    make_candidates: CandidatesFactory, choose: Choose, make_evidence: EvidenceFactory
) -> None:
    score = acquisition("calm").score(make_evidence([[PixelState.TRUSTED]]), QueryConfig())
    assert score.tolist() == [[0.5]]
    found = choose(make_candidates(line(2), score_sum=[64, 128]), "1region", config=alone("calm"))
    assert found.chosen.tolist() == [1]
    assert found.reasons == ("calm by 0.5",)
    assert acquisition("entropy") is ACQUISITIONS["entropy"]


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "broken",
            "query.strategy 'broken': the plugin broken_strategy:it cannot be loaded "
            "(OSError: no licence found); repair or remove it",
        ),
        (
            "number",
            "query.strategy 'number': the plugin other_strategies:number is a int, not a "
            "geohsal.query.acquisition.Acquisition; repair or remove it",
        ),
    ],
)
def test_a_bad_plugin_is_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        acquisition(name)
    assert str(raised.value) == message


@pytest.mark.parametrize("values", [[[-1.0]], [[np.nan]], [[1.0, 1.0]]])
def test_a_score_map_that_means_nothing_is_refused(
    make_evidence: EvidenceFactory, values: list[list[float]]
) -> None:
    odd = replace(ACQUISITIONS["entropy"], name="odd", score=lambda *_: np.array(values))
    with pytest.raises(ConfigError, match=r"'odd': its score map of scene north must be \(1, 1\)"):
        odd.pixels(make_evidence([[PixelState.TRUSTED]]), QueryConfig())


@pytest.mark.usefixtures("plugins")
def test_plugins_are_among_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"ripu, emd, broken, calm, number$"):
        acquisition("nothing")


def test_information_that_was_not_asked_for_is_a_mistake(make_evidence: EvidenceFactory) -> None:
    evidence = make_evidence([[PixelState.TRUSTED]], information=None)
    with pytest.raises(ValueError, match="the acquisition does not need it"):
        ACQUISITIONS["bald"].score(evidence, QueryConfig())
    assert ACQUISITIONS["bald"].needs == {"information"}
