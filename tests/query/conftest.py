"""Factories of the query room: evidence, maps and candidate tables from a few numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from geohsal.config import CostConfig, QueryConfig
from geohsal.geo.budget import Budget, parse_budget
from geohsal.geo.scene import SceneMaps
from geohsal.geo.states import IGNORE_INDEX, PixelState
from geohsal.query.costs import region_costs
from geohsal.query.evidence import PixelEvidence
from geohsal.query.layout import RegionUnit
from geohsal.query.regions import Candidates
from geohsal.query.selection import Selection, select

MapsFactory = Callable[..., SceneMaps]
EvidenceFactory = Callable[..., PixelEvidence]
CandidatesFactory = Callable[..., Candidates]
Choose = Callable[..., Selection]

NAMES = ("Meadow", "Crop", "Water")
LONE = QueryConfig(audit_share=0, exclusion=0, tile_cap=1, diversity=1)
"""Settings under which nothing but score and cost decide."""


@pytest.fixture(scope="session")
def make_evidence() -> EvidenceFactory:
    """`make_evidence(state, ...)`: every map constant unless given."""

    def make(state: Any, **given: Any) -> PixelEvidence:
        state = np.asarray(state, dtype=np.uint8)
        values: dict[str, Any] = {
            "scene_id": "north",
            "seed": 0,
            "teacher": np.zeros(state.shape, dtype=np.uint8),
            "confidence": np.full(state.shape, 0.75, dtype=np.float32),
            "entropy": np.full(state.shape, 0.5, dtype=np.float32),
            "top2_margin": np.full(state.shape, 0.25, dtype=np.float32),
            "error": np.full(state.shape, 0.5, dtype=np.float32),
            "disagree": np.zeros(state.shape, dtype=bool),
            "information": np.full(state.shape, 0.125, dtype=np.float32),
            "class_weight": np.ones(3),
        }
        return PixelEvidence(state=state, **(values | given))

    return make


@pytest.fixture(scope="session")
def make_maps() -> MapsFactory:
    """`make_maps(shape, seed=...)`: random maps of three classes that obey the states."""

    def make(shape: tuple[int, int], *, seed: int = 0, **given: Any) -> SceneMaps:
        rng = np.random.default_rng(seed)
        state = rng.integers(0, 7, shape).astype(np.uint8)
        nodata = state == PixelState.NODATA
        undecided = np.isin(state, (PixelState.AMBIGUOUS, PixelState.NOVEL))
        teacher, refined, plar = (rng.integers(0, 3, shape).astype(np.uint8) for _ in range(3))
        values: dict[str, Any] = {
            "teacher": np.where(nodata, IGNORE_INDEX, teacher).astype(np.uint8),
            "refined": np.where(nodata, IGNORE_INDEX, refined).astype(np.uint8),
            "plar": np.where(undecided, plar, IGNORE_INDEX).astype(np.uint8),
            "state": state,
        }
        for name in ("confidence", "error", "margin", "undecided"):
            values[name] = np.where(nodata, 0, rng.random(shape)).astype(np.float32)
        return SceneMaps(**(values | given))

    return make


@pytest.fixture(scope="session")
def make_candidates() -> CandidatesFactory:
    """`make_candidates([(scene, row, col), ...], pixels=..., ...)`: 16 px cells, score 1 each."""

    def make(
        cells: list[tuple[str, int, int]], *, unit: RegionUnit = "grid", **given: Any
    ) -> Candidates:
        count, side = len(cells), 16 if unit == "grid" else 8
        scene_ids = tuple(dict.fromkeys(scene for scene, _, _ in cells))
        ints = np.full(count, 16, dtype=np.int32)
        values: dict[str, Any] = {
            "scene": np.array([scene_ids.index(cell[0]) for cell in cells], dtype=np.int32),
            "row": np.array([cell[1] for cell in cells], dtype=np.int32),
            "col": np.array([cell[2] for cell in cells], dtype=np.int32),
            "number": np.zeros(count, dtype=np.int32),
            "atom": np.arange(count, dtype=np.int32),
            "top": np.array([cell[1] * side for cell in cells], dtype=np.int32),
            "left": np.array([cell[2] * side for cell in cells], dtype=np.int32),
            "cell_height": ints,
            "cell_width": ints,
            "pixels": np.full(count, 256, dtype=np.int64),
            "score_sum": np.ones(count),
            "mean_error": np.full(count, 0.5),
            "ambiguous_share": np.full(count, 0.5),
            "novel_share": np.zeros(count),
            "margin": np.full(count, 1.0),
            "teacher_class": np.zeros(count, dtype=np.int16),
            "plar_class": np.ones(count, dtype=np.int16),
            "ambiguous": np.tile(np.array([0, 1], dtype=np.int16), (count, 1)),
            "answers": np.full(count, 2, dtype=np.int32),
            "features": np.zeros((count, 2), dtype=np.float32),
            "embeddings": np.zeros((count, 0), dtype=np.float32),
        }
        for name, value in given.items():
            values[name] = np.asarray(value, dtype=values[name].dtype)
        return Candidates(scene_ids=scene_ids, unit=unit, region_px=16, **values)

    return make


@pytest.fixture(scope="session")
def choose() -> Choose:
    """`choose(candidates, "5regions", ...)`: score and cost alone decide unless told otherwise."""

    def make(
        candidates: Candidates,
        budget: Budget | str,
        *,
        config: QueryConfig = LONE,
        costs: Any = None,
        tiles: Any = None,
        seed: int = 0,
        labelled: Any = None,
        proven: bool = True,
    ) -> Selection:
        if isinstance(budget, str):
            budget = parse_budget(budget, pool_pixels=100_000)
        return select(
            candidates,
            region_costs(candidates, budget, config=CostConfig()) if costs is None else costs,
            budget=budget,
            config=config,
            seed=seed,
            tiles=["one"] * len(candidates) if tiles is None else tiles,
            class_names=NAMES,
            labelled=None if labelled is None else np.asarray(labelled, dtype=np.float32),
            proven=proven,
        )

    return make
