"""What regions cost, why they are asked, and the values that leave the query room."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geohsal.config import CostConfig, QueryConfig
from geohsal.errors import BudgetError
from geohsal.geo.budget import BudgetUnit, parse_budget
from geohsal.geo.scene import Scene
from geohsal.query.costs import cost_seconds, cost_text, region_areas_m2, region_costs
from geohsal.query.regions import Candidates
from geohsal.query.selection import Selection, to_query_regions

CandidatesFactory = Callable[..., Candidates]
Choose = Callable[..., Selection]


def grid(rows: int, cols: int, scene: str = "north") -> list[tuple[str, int, int]]:
    return [(scene, row, col) for row in range(rows) for col in range(cols)]


@pytest.mark.parametrize(
    ("cost", "unit", "text"),
    [
        (2, "regions", "2regions"),
        (640, "pixels", "640px"),
        (1024, "m2", "0.1024ha"),
        (25_600.004, "m2", "2.560001ha"),
        (100, "seconds", "1.67min"),
    ],
)
def test_costs_are_worded_as_budgets(cost: float, unit: BudgetUnit, text: str) -> None:
    assert cost_text(cost, unit) == text


@given(cost=st.floats(0.01, 1e8), unit=st.sampled_from(["pixels", "m2", "seconds"]))
@example(cost=3.0, unit="m2")
@example(cost=123.0, unit="seconds")
def test_a_budget_of_a_cost_covers_it(cost: float, unit: BudgetUnit) -> None:
    covered = parse_budget(cost_text(cost, unit), pool_pixels=1)
    assert covered.unit == unit
    assert covered.amount >= cost


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ({"ambiguous_share": [0.62]}, "62 % undecided (ambiguous Meadow/Crop), predicted error"),
        (
            {"ambiguous_share": [0.1], "novel_share": [0.3]},
            "40 % undecided (unlike any labelled class; ambiguous Meadow/Crop), predicted error",
        ),
        (
            {"ambiguous_share": [0.004], "ambiguous": [[2, -1]]},
            "less than 1 % undecided (ambiguous Water), predicted error",
        ),
        ({"ambiguous_share": [0]}, "teacher and friend disagree, predicted error"),
    ],
)
def test_reasons_name_what_is_undecided(
    make_candidates: CandidatesFactory, choose: Choose, given_: dict[str, Any], reason: str
) -> None:
    found = choose(make_candidates([("north", 0, 0)], mean_error=[0.714], **given_), "1region")
    assert found.reasons == (f"{reason} 0.71",)


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        ("entropy", "mean entropy 0.25"),
        ("margin", "two best classes close together: mean 0.25"),
        ("least_confidence", "mean confidence 0.75"),
        ("emd", "predicted error 0.25"),
    ],
)
def test_reasons_of_the_baselines(
    make_candidates: CandidatesFactory, choose: Choose, strategy: str, reason: str
) -> None:
    config = QueryConfig(strategy=strategy, audit_share=0)
    found = choose(make_candidates([("north", 0, 0)], score_sum=[64]), "1region", config=config)
    assert found.reasons == (reason,)


def test_minutes_are_regions_and_answers(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(grid(1, 4), answers=[1, 2, 3, 4])
    assert cost_seconds(candidates.answers, CostConfig()).tolist() == [25, 30, 35, 40]
    found = choose(candidates, "1min")
    assert found.chosen.tolist() == [0, 1]
    assert found.notes == ("0.1 min left of 1min: no other region fits",)
    with pytest.raises(BudgetError, match=r"budget 1min: a region would cost nothing; set cost\."):
        region_costs(
            candidates,
            parse_budget("1min", pool_pixels=1),
            config=CostConfig(seconds_per_region=0, seconds_per_answer=0),
        )


def test_areas_are_those_of_the_pool_pixels(make_candidates: CandidatesFactory) -> None:
    place = Affine(10, 0, 500_000, 0, -10, 5_200_000)
    north = Scene(
        scene_id="north",
        crs=CRS.from_epsg(32632),
        transform=place,
        height=64,
        width=64,
        bands=("red",),
    )
    local = Scene(
        scene_id="local", crs=None, transform=place, height=64, width=64, bands=("red",), local=True
    )
    candidates = make_candidates([("north", 1, 2), ("local", 0, 0)], pixels=[128, 256])
    areas = region_areas_m2(candidates, {"north": north, "local": local})
    assert areas[0] == pytest.approx(12_800, rel=2e-3)
    assert np.isnan(areas[1])
    two = make_candidates([("north", 1, 2), ("north", 0, 0)], pixels=[128, 256])
    chosen = region_areas_m2(two, {"north": north}, np.array([1]))
    assert np.isnan(chosen[0])
    assert chosen[1] == pytest.approx(25_600, rel=2e-3)
    budget = parse_budget("2ha", pool_pixels=1)
    with pytest.raises(BudgetError, match="budget 2ha: scenes without a position on Earth"):
        region_costs(candidates, budget, config=CostConfig(), areas_m2=areas)
    costs = region_costs(candidates.take([0]), budget, config=CostConfig(), areas_m2=areas[:1])
    assert costs.tolist() == areas[:1].tolist()


def test_query_regions_carry_all_that_is_known(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(
        [("north", 0, 0), ("north", 2, 3)],
        score_sum=[1, 512],
        pixels=[256, 200],
        cell_width=[16, 13],
        plar_class=[1, -1],
        novel_share=[0, 0.25],
    )
    found = choose(candidates, "2regions")
    mask = np.zeros((16, 13), dtype=bool)
    mask.ravel()[:200] = True
    first, second = to_query_regions(
        candidates,
        found,
        masks=[mask, np.ones((16, 16), dtype=bool)],
        round_index=4,
        areas_m2=np.array([np.nan, 2000.0]),
        seconds=np.array([30.0, 60.0]),
    )
    assert (first.region_id, first.scene_id) == ("north-g16-r00002-c00003", "north")
    assert (first.round, first.rank, second.rank) == (4, 1, 2)
    assert (first.cell.col_off, first.cell.row_off) == (48, 32)
    assert (first.cell.width, first.cell.height) == (13, 16)
    assert (first.pixels, first.score, first.cost_min, first.audit) == (200, 512.0, 1.0, False)
    assert (first.area_m2, second.area_m2) == (2000.0, None)
    assert (first.plar_class, second.plar_class) == (None, 1)
    assert (first.undecided_share, first.error_probability, first.margin) == (0.75, 0.5, 1.0)
    assert first.reason == found.reasons[0]


def test_a_mask_must_hold_the_pixels_that_were_charged(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates([("north", 0, 0)])
    with pytest.raises(ValueError, match=r"north-g16-r00000-c00000: its mask is \(16, 16\) with 0"):
        to_query_regions(
            candidates,
            choose(candidates, "1region"),
            masks=[np.zeros((16, 16), dtype=bool)],
            round_index=0,
            areas_m2=np.array([1.0]),
            seconds=np.array([1.0]),
        )


def test_what_is_bought_by_spread_says_so(
    make_candidates: CandidatesFactory, choose: Choose
) -> None:
    candidates = make_candidates(
        grid(1, 3),
        features=[[0, 0], [1, 0], [5, 0]],
        ambiguous_share=[0, 0, 0.4],
        mean_error=[0.02, 0.02, 0.02],
    )
    spread = choose(candidates, "2regions", proven=False)
    assert sorted(spread.chosen.tolist()) == [0, 2]
    assert set(spread.reasons) == {
        "unlike the other regions asked about",
        "unlike the other regions asked about, 40 % undecided (ambiguous Meadow/Crop)",
    }
    trusting = choose(candidates.take([0]), "1regions")
    assert trusting.reasons == ("teacher and friend disagree, predicted error 0.02",)
