"""Selection: the budget is never broken, rules hold for any pool, the outcome says what it did."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geohsal.config import QueryConfig
from geohsal.errors import BudgetError, RunError
from geohsal.geo.budget import Budget, parse_budget
from geohsal.query import selectors
from geohsal.query.draws import cell_draws
from geohsal.query.regions import Candidates
from geohsal.query.selection import Selection

CandidatesFactory = Callable[..., Candidates]
Choose = Callable[..., Selection]


def grid(rows: int, cols: int, scene: str = "north") -> list[tuple[str, int, int]]:
    return [(scene, row, col) for row in range(rows) for col in range(cols)]


@st.composite
def pools(draw: st.DrawFn) -> dict[str, Any]:
    """Adversarial pools: several scenes, holes, equal and zero scores, wild costs, few tiles."""
    cells = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(0, 6), st.integers(0, 6)),
            min_size=1,
            max_size=40,
            unique=True,
        )
    )
    count = len(cells)

    def column(values: st.SearchStrategy[Any]) -> list[Any]:
        return draw(st.lists(values, min_size=count, max_size=count))

    return {
        "cells": cells,
        "score_sum": column(st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.5, 100.0])),
        "mean_error": column(st.sampled_from([0.0, 0.25, 0.5])),
        "features": column(st.tuples(st.integers(-2, 2), st.integers(0, 1))),
        "embeddings": column(st.tuples(st.integers(-2, 2), st.integers(0, 1))),
        "costs": np.array(
            column(st.sampled_from([0.1, 0.3, 1.0, 1.0, 7.0, 1e-9, 1 / 3, 1e6])), dtype=float
        ),
        "tiles": np.array(column(st.sampled_from(["t0", "t1", "t2", "t3", "t4"]))),
    }


CONFIGS = st.builds(
    QueryConfig,
    strategy=st.sampled_from(["plar", "random", "emd", "entropy", "coreset", "badge"]),
    aggregate=st.sampled_from(["strategy", "sum", "mean"]),
    exclusion=st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e9]),
    tile_cap=st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    diversity=st.sampled_from([1.0, 5.0]),
    audit_share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
AMOUNTS = st.sampled_from([1e-9, 0.1, 0.30000000000000004, 1.0, 3.0, 10.0, 29.9, 1e6, 1e9])


@settings(max_examples=150)
@given(pool=pools(), config=CONFIGS, amount=AMOUNTS, seed=st.integers(0, 9))
def test_budget_and_tile_cap_hold_for_any_pool(
    make_candidates: CandidatesFactory,
    choose: Choose,
    pool: dict[str, Any],
    config: QueryConfig,
    amount: float,
    seed: int,
) -> None:
    costs, tiles = pool.pop("costs"), pool.pop("tiles")
    candidates = make_candidates(**pool)
    budget = Budget(amount=amount, unit="m2", text="some")
    if costs.min() > amount:
        with pytest.raises(BudgetError, match="budget some: buys nothing, the cheapest of"):
            choose(candidates, budget, config=config, costs=costs, tiles=tiles, seed=seed)
        return
    found = choose(candidates, budget, config=config, costs=costs, tiles=tiles, seed=seed)
    paid = costs[found.chosen]
    assert 1 <= len(found) == len(set(found.chosen.tolist()))
    assert found.spent == math.fsum(paid) <= amount
    assert found.remainder == float(Fraction(amount) - sum(Fraction(float(c)) for c in paid)) >= 0
    cap = max(1, config.tile_cap * len(found), 2 * len(found) / len(set(tiles)))
    busiest = Counter(tiles[found.chosen]).most_common(1)[0][1]
    assert busiest <= cap
    assert len(found) == len(found.audit) == len(found.scores) == len(found.reasons)
    assert (found.remainder > 0) == any("left of some" in note for note in found.notes)


@settings(max_examples=75)
@given(pool=pools(), config=CONFIGS, amount=AMOUNTS, order=st.randoms(use_true_random=False))
def test_order_of_the_table_changes_nothing(
    make_candidates: CandidatesFactory,
    choose: Choose,
    pool: dict[str, Any],
    config: QueryConfig,
    amount: float,
    order: Any,
) -> None:
    costs, tiles = pool.pop("costs"), pool.pop("tiles")
    candidates = make_candidates(**pool)
    budget = Budget(amount=max(amount, float(costs.min())), unit="m2", text="some")
    mixed = list(range(len(candidates)))
    order.shuffle(mixed)
    first = choose(candidates, budget, config=config, costs=costs, tiles=tiles)
    second = choose(
        candidates.take(mixed), budget, config=config, costs=costs[mixed], tiles=tiles[mixed]
    )
    assert first.chosen.tolist() == np.array(mixed)[second.chosen].tolist()
    assert first.audit.tolist() == second.audit.tolist()
    assert first.scores.tolist() == second.scores.tolist()
    assert (first.reasons, first.notes) == (second.reasons, second.notes)


@settings(max_examples=50)
@given(pool=pools(), config=CONFIGS, amount=AMOUNTS)
def test_distance_is_kept_unless_the_notes_say_how_often_not(
    make_candidates: CandidatesFactory,
    choose: Choose,
    pool: dict[str, Any],
    config: QueryConfig,
    amount: float,
) -> None:
    costs, tiles = pool.pop("costs"), pool.pop("tiles")
    candidates = make_candidates(**pool)
    budget = Budget(amount=max(amount, float(costs.min())), unit="m2", text="some")
    found = choose(candidates, budget, config=config, costs=costs, tiles=tiles)
    cells = [
        (candidates.scene_id(i), candidates.row[i], candidates.col[i])
        for i in found.chosen.tolist()
    ]
    close = sum(
        any(
            scene == other and max(abs(row - r), abs(col - c)) - 1 < config.exclusion
            for other, r, c in cells
            if (other, r, c) != (scene, row, col)
        )
        for scene, row, col in cells
    )
    assert bool(close) == any("lie closer than query.exclusion" in note for note in found.notes)


def test_distance_is_between_edges(make_candidates: CandidatesFactory, choose: Choose) -> None:
    candidates = make_candidates(grid(1, 7))
    for exclusion in (0.5, 1.0):
        near = QueryConfig(audit_share=0, tile_cap=1, exclusion=exclusion)
        found = choose(candidates, "4regions", config=near)
        assert sorted(candidates.col[found.chosen].tolist()) == [0, 2, 4, 6]
        assert found.notes == ()
    wide = QueryConfig(audit_share=0, tile_cap=1, exclusion=2)
    found = choose(candidates, "3regions", config=wide)
    assert sorted(candidates.col[found.chosen].tolist()) == [0, 3, 6]


def test_distance_gives_way_when_the_pool_holds_no_others(
    make_candidates: CandidatesFactory,
    choose: Choose,
) -> None:
    found = choose(
        make_candidates(grid(1, 3)), "3regions", config=QueryConfig(audit_share=0, tile_cap=1)
    )
    assert len(found) == 3
    assert found.notes == (
        "1 of 3 regions lie closer than query.exclusion 1: the pool holds no others",
    )


def test_worth_is_score_per_cost(make_candidates: CandidatesFactory, choose: Choose) -> None:
    candidates = make_candidates(grid(1, 3), score_sum=[9, 8, 4], pixels=[256, 160, 128])
    found = choose(candidates, "300px")
    assert found.chosen.tolist() == [1, 2]
    assert found.scores.tolist() == [0.05, 0.03125]
    assert found.spent == 288
    assert found.remainder == 12
    assert found.notes == ("12 pixels left of 300px: no other region fits",)


def test_a_region_that_does_not_fit_makes_room_for_cheaper_ones(
    make_candidates: CandidatesFactory,
    choose: Choose,
) -> None:
    candidates = make_candidates(grid(1, 3), score_sum=[900, 90, 1], pixels=[200, 150, 100])
    assert choose(candidates, "310px").chosen.tolist() == [0, 2]


def test_a_percentage_buys_pixels(make_candidates: CandidatesFactory, choose: Choose) -> None:
    found = choose(make_candidates(grid(4, 4)), parse_budget("2%", pool_pixels=50_000))
    assert found.spent == 3 * 256
    assert found.notes == ("232 pixels left of 2%: no other region fits",)


@pytest.mark.parametrize(
    ("budget", "price"),
    [
        (Budget(amount=255, unit="pixels", text="255px"), "256px"),
        (Budget(amount=29, unit="seconds", text="0.48min"), "0.5min"),
    ],
)
def test_a_budget_below_the_cheapest_region_names_its_cost(
    make_candidates: CandidatesFactory, choose: Choose, budget: Budget, price: str
) -> None:
    message = (
        f"budget {budget.text}: buys nothing, the cheapest of 3 regions costs {price}; "
        f"give at least {price}"
    )
    with pytest.raises(BudgetError) as raised:
        choose(make_candidates(grid(1, 3)), budget)
    assert str(raised.value) == message
    assert raised.value.exit_code == 2
    parse_budget(price, pool_pixels=1000)


def test_nothing_left_to_ask(make_candidates: CandidatesFactory, choose: Choose) -> None:
    with pytest.raises(RunError, match=r"^nothing is left to ask: no train cell holds enough"):
        choose(make_candidates([]), "5regions")


def test_a_pool_smaller_than_the_budget_is_taken_whole(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    found = choose(make_candidates(grid(2, 2)), "200regions")
    assert len(found) == 4
    assert found.notes == ("196 regions left of 200regions: the whole pool is in the query",)


def test_a_region_twice_in_the_table_is_refused(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    with pytest.raises(ValueError, match="region north-g16-r00000-c00000 is in the candidate"):
        choose(make_candidates([("north", 0, 0), ("north", 0, 0)]), "1regions")


def test_audit_regions_are_drawn_from_the_whole_pool(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    cells = grid(20, 20)
    scores = np.where(np.arange(400) < 200, 10.0, 0.0)
    candidates = make_candidates(cells, score_sum=scores)
    config = QueryConfig(audit_share=0.1, exclusion=0, tile_cap=1, diversity=1)
    drawn = []
    for seed in range(20):
        found = choose(candidates, "50regions", config=config, seed=seed)
        assert found.audit.sum() == 5
        assert {r for r, a in zip(found.reasons, found.audit, strict=True) if a} == {"random audit"}
        drawn.extend(found.chosen[found.audit].tolist())
    assert 30 <= sum(index >= 200 for index in drawn) <= 70  # half of 100, four deviations
    assert len(set(drawn)) > 80


@pytest.mark.parametrize(("amount", "expected"), [(4, 0), (5, 1), (9, 1), (20, 2), (39, 3)])
def test_a_batch_of_five_holds_an_audit_region(
    make_candidates: CandidatesFactory, choose: Choose, amount: int, expected: int
) -> None:
    config = QueryConfig(exclusion=0, tile_cap=1)
    found = choose(make_candidates(grid(10, 10)), f"{amount}regions", config=config)
    assert found.audit.sum() == expected


def test_audit_regions_are_spread_among_the_ranks(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    config = QueryConfig(audit_share=0.2, exclusion=0, tile_cap=1)
    scores = np.arange(100) + 1.0
    found = choose(make_candidates(grid(10, 10), score_sum=scores), "10regions", config=config)
    assert np.flatnonzero(found.audit).tolist() == [2, 7]
    rest = found.scores[~found.audit]
    assert (np.diff(rest) <= 0).all()


@pytest.mark.parametrize(("share", "cap"), [(0.05, 2), (0.5, 5), (1.0, 10)])
def test_one_tile_gives_no_more_than_its_share(
    make_candidates: CandidatesFactory, choose: Choose, share: float, cap: int
) -> None:
    cells = grid(10, 10)
    tiles = [f"row{row}" for _, row, _ in cells]
    config = QueryConfig(audit_share=0, exclusion=0, tile_cap=share, diversity=1)
    scores = [100.0 if row == 4 else 1.0 for _, row, _ in cells]
    found = choose(
        make_candidates(cells, score_sum=scores), "10regions", config=config, tiles=tiles
    )
    assert len(found) == 10
    assert Counter(tiles[i] for i in found.chosen)["row4"] == cap


def test_a_full_tile_is_named_where_it_keeps_the_budget_unspent(
    make_candidates: CandidatesFactory,
    choose: Choose,
) -> None:
    cells = [*grid(1, 20, "a"), *grid(1, 1, "b"), *grid(1, 1, "c")]
    tiles = [scene for scene, _, _ in cells]
    config = QueryConfig(audit_share=0, exclusion=0, tile_cap=0.0)
    found = choose(make_candidates(cells), "12regions", config=config, tiles=tiles)
    assert Counter(tiles[i] for i in found.chosen) == {"a": 4, "b": 1, "c": 1}
    assert found.notes == (
        "6 regions left of 12regions: other regions lie in tiles that reached query.tile_cap",
    )


def test_diversity_prefers_regions_unlike_those_chosen(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(
        grid(1, 6),
        score_sum=[10, 9, 8, 7, 6, 1],
        features=[[0, 0], [0, 0], [0, 1], [5, 5], [0, 0], [9, 9]],
    )
    config = QueryConfig(audit_share=0, exclusion=0, tile_cap=1, diversity=2)
    assert choose(candidates, "2regions", config=config).chosen.tolist() == [0, 3]
    assert choose(candidates, "2regions").chosen.tolist() == [0, 1]


def test_the_random_strategy_takes_every_region_alike(
    make_candidates: CandidatesFactory,
    choose: Choose,
) -> None:
    rng = np.random.default_rng(1)
    candidates = make_candidates(
        grid(4, 5),
        score_sum=rng.random(20) * 100,
        pixels=rng.integers(100, 256, 20),
        mean_error=rng.random(20),
        features=rng.normal(size=(20, 2)),
    )
    config = QueryConfig(strategy="random", audit_share=0.2, exclusion=0, tile_cap=1)
    taken: Counter[int] = Counter()
    for seed in range(200):
        found = choose(candidates, "5regions", config=config, seed=seed)
        taken.update(found.chosen.tolist())
        assert set(found.reasons) == {"random choice", "random audit"}
    counts = np.array([taken[index] for index in range(20)])
    assert counts.sum() == 1000
    assert np.abs(counts - 50).max() < 27  # 4.4 standard deviations of a region's count
    assert ((counts - 50) ** 2).sum() / 37.5 < 45  # chi-square, 0.1 % of its tail


def test_what_is_left_is_filled_by_error_then_by_lot(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(
        grid(1, 10),
        score_sum=[0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        mean_error=[0, 0.2, 0.1, 0.6, 0, 0, 0, 0, 0, 0],
    )
    found = choose(candidates, "5regions")
    assert found.chosen[:3].tolist() == [2, 3, 1]
    assert found.reasons[1:] == (
        "fill-in by predicted error 0.60",
        "fill-in by predicted error 0.20",
        "fill-in at random",
        "fill-in at random",
    )
    assert found.notes == (
        "nothing undecided was free for part of the budget: 1 by score, 2 by predicted error, "
        "2 at random",
    )
    others = [choose(candidates, "5regions", seed=seed).chosen[3:].tolist() for seed in range(5)]
    assert len({tuple(other) for other in others}) > 1


def test_while_errors_are_not_proven_regions_are_spread_over_the_whole_pool(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    # ten regions of high score that all look alike, ninety unlike each other
    features = np.zeros((100, 2), dtype=np.float32)
    features[10:, 0] = np.arange(90) / 9
    scores = np.r_[np.full(10, 100.0), np.full(90, 1.0)]
    candidates = make_candidates(grid(10, 10), score_sum=scores, features=features)
    config = QueryConfig(audit_share=0, exclusion=0, tile_cap=1, diversity=1)
    trusting = choose(candidates, "10regions", config=config)
    spread = choose(candidates, "10regions", config=config, proven=False)
    assert sorted(trusting.chosen.tolist()) == list(range(10))
    assert 0 in spread.chosen
    assert np.ptp(features[spread.chosen, 0]) > 9
    assert sum(index < 10 for index in spread.chosen) == 1


def test_a_spread_over_a_large_pool_is_over_regions_drawn_by_lot(
    make_candidates: CandidatesFactory, choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selectors, "_MOST_SPREAD", 20)
    features = np.stack([np.arange(100) % 37, np.arange(100) % 11], axis=1).astype(np.float32)
    candidates = make_candidates(grid(10, 10), features=features)
    config = QueryConfig(audit_share=0, exclusion=0, tile_cap=1)

    def chosen(seed: int, order: Any = slice(None)) -> list[int]:
        among = candidates.take(np.arange(100)[order])
        found = choose(among, "20regions", config=config, proven=False, seed=seed)
        return sorted(np.arange(100)[order][found.chosen].tolist())

    for seed in range(3):
        cols = np.arange(100) % 10
        lot = cell_draws("north", np.arange(100) // 10, cols=cols, seed=seed, purpose="fill")
        assert chosen(seed) == sorted(np.argsort(lot)[:20].tolist())
        assert chosen(seed, slice(None, None, -1)) == chosen(seed)
    assert chosen(0) != chosen(1)
