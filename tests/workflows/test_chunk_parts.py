"""Parts of a scene: any window of its maps, and counts and sums as of the whole."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.windows import Window

from geohsal.errors import PartsMissingError
from geohsal.geo.patches import slices
from geohsal.io.parts import part_path, write_part
from geohsal.io.plan import SceneUnits, make_plan
from geohsal.query.feature_sums import FeatureSums, merge_sums
from geohsal.refine.correction_caps import Corrections, count_corrections
from geohsal.training.inference import chunks
from geohsal.training.maps import ChunkMaps
from geohsal.workflows.chunk_parts import MAPS, ChunkSums, SceneParts, pack_chunk

SHAPE = (23, 31)
WINDOWS = list(chunks(*SHAPE, size=10))


def whole() -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(1)
    maps: dict[str, NDArray[np.generic]] = {}
    for name in ("teacher", "plar", "label"):
        maps[name] = rng.integers(0, 4, SHAPE).astype(np.uint8)
    maps["state"] = rng.integers(0, 7, SHAPE).astype(np.uint8)
    for name in ("confidence", "entropy", "top2", "error", "margin"):
        maps[name] = rng.random(SHAPE).astype(np.float32)
    maps["disagree"] = rng.random(SHAPE) < 0.5
    return maps


def sums(number: int) -> ChunkSums:
    own = FeatureSums(
        numbers=np.array([number, number + 1]),
        pixels=np.array([1, 2]),
        sums=np.full((3, 2), float(number)),
    )
    return ChunkSums(features=own, embeddings=None, labelled=None)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> SceneParts:
    folder = tmp_path_factory.mktemp("parts")
    table = np.array([(w.row_off, w.col_off, w.height, w.width) for w in WINDOWS])
    units = SceneUnits(scene_id="s", fingerprint="", windows=table)
    plan = make_plan("query", request="", scenes=[units], chunk_units=5)
    maps = [
        ChunkMaps(window=w, information=None, **{n: v[slices(w)] for n, v in whole().items()})
        for w in WINDOWS
    ]
    for place, chunk_id in enumerate(plan.chunk_ids):
        at = plan.units_of(place)
        numbers = range(at.start, at.stop)
        packed = pack_chunk(maps[at], [sums(n) for n in numbers], doubts={"top2_margin"})
        write_part(part_path(folder, chunk_id), packed, {})
    return SceneParts(plan, folder, "s", command="geohsal query RUN")


@given(st.integers(0, 22), st.integers(0, 30), st.integers(1, 23), st.integers(1, 31))
@settings(max_examples=40)
def test_any_window_is_cut_out_of_the_parts(
    parts: SceneParts, top: int, left: int, height: int, width: int
) -> None:
    window = Window(left, top, min(width, SHAPE[1] - left), min(height, SHAPE[0] - top))
    found = parts.maps(window)
    assert found.window == window
    assert found.information is None
    assert not found.entropy.any()  # no score reads it
    for name, values in whole().items():
        if name != "entropy":
            assert np.array_equal(getattr(found, name), values[slices(window)]), name
    assert np.array_equal(parts.teacher(window), found.teacher)


def test_counts_and_sums_are_those_of_the_whole(parts: SceneParts) -> None:
    assert list(parts.windows()) == WINDOWS
    maps = whole()
    expected = count_corrections(*(maps[n] for n in ("state", "teacher", "plar", "margin")))  # type: ignore[arg-type]
    for field in fields(Corrections):
        assert np.array_equal(
            getattr(parts.corrections(), field.name), getattr(expected, field.name)
        )
    found = merge_sums([own.features for own in parts.sums()])
    wanted = merge_sums([sums(number).features for number in range(len(WINDOWS))])
    for item in fields(FeatureSums):
        assert np.array_equal(getattr(found, item.name), getattr(wanted, item.name))
    assert all(own.embeddings is None and own.labelled is None for own in parts.sums())
    assert set(MAPS) == {*maps, "information"}


def test_a_damaged_part_names_the_command(parts: SceneParts, tmp_path: Path) -> None:
    elsewhere = SceneParts(parts._plan, tmp_path, "s", command="geohsal query RUN")
    with pytest.raises(PartsMissingError, match="missing or damaged; run: geohsal query RUN"):
        elsewhere.teacher(Window(0, 0, 3, 3))
