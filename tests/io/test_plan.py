"""Plans: frozen numbers, ids by content."""

from pathlib import Path

import numpy as np
import pytest
from rasterio.windows import Window
from toy_work import toy_plan

from geohsal.errors import DataError
from geohsal.io.plan import (
    COLUMNS,
    Plan,
    SceneUnits,
    find_plan,
    freeze_plan,
    make_plan,
    read_plan,
    window_rows,
    write_plan,
)


def one(**changes: object) -> Plan:
    values: dict[str, object] = {
        "stage": "toy",
        "request": "model",
        "scene_id": "north",
        "fingerprint": "abc",
        "windows": np.array([[0, 0, 4, 4], [4, 0, 4, 4]]),
    }
    values |= changes
    stage, request = str(values.pop("stage")), str(values.pop("request"))
    return make_plan(stage, request=request, scenes=[SceneUnits(**values)], chunk_units=8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "other"},
        {"request": "another model"},
        {"scene_id": "south"},
        {"fingerprint": "abd"},
        {"windows": np.array([[0, 0, 4, 4], [4, 0, 4, 3]])},
        {"windows": np.array([[4, 0, 4, 4], [0, 0, 4, 4]])},
    ],
)
def test_ids_change_with_what_the_result_depends_on(changes: dict[str, object]) -> None:
    assert one().chunk_ids == one().chunk_ids
    assert one(**changes).chunk_ids != one().chunk_ids
    assert all(len(name) == 32 for name in one(**changes).chunk_ids)


def test_the_type_of_the_windows_changes_nothing() -> None:
    windows = np.array([[0, 0, 4, 4], [4, 0, 4, 4]], dtype=np.int16)
    assert one(windows=windows).chunk_ids == one().chunk_ids


def test_chunks_are_of_one_scene_and_hold_every_unit_once() -> None:
    plan = toy_plan(scenes=3, units=7, chunk_units=3)
    assert len(plan) == 21
    assert [len(plan.windows_of(place)) for place in range(9)] == [3, 3, 1] * 3
    assert [plan.scene_of(place) for place in range(9)] == ["s0"] * 3 + ["s1"] * 3 + ["s2"] * 3
    assert plan.chunks_of("s1") == range(3, 6)
    assert plan.windows_of(5).tolist() == [[24, 0, 4, 5]]
    assert len(set(plan.chunk_ids)) == 9


def test_a_scene_without_windows_has_no_chunks() -> None:
    empty = SceneUnits(scene_id="e", fingerprint="", windows=np.zeros((0, 4)))
    plan = make_plan("toy", request="", scenes=[empty], chunk_units=4)
    assert (len(plan), plan.chunk_ids, plan.chunks_of("e")) == (0, (), range(0))


def test_a_scene_is_planned_once() -> None:
    empty = SceneUnits(scene_id="e", fingerprint="", windows=np.zeros((0, 4)))
    with pytest.raises(ValueError, match="a scene is planned twice"):
        make_plan("toy", request="", scenes=[empty, empty], chunk_units=4)


def test_a_plan_is_read_as_it_was_written_and_its_bytes_do_not_know_where_it_lies(
    tmp_path: Path,
) -> None:
    plan = toy_plan()
    for name in ("a", "b/c"):
        write_plan(tmp_path / name / "plan.parquet", plan)
    first, second = (tmp_path / name / "plan.parquet" for name in ("a", "b/c"))
    assert first.read_bytes() == second.read_bytes()
    found = read_plan(first)
    assert (found.stage, found.request, found.scenes) == ("toy", "model", ("s0", "s1"))
    assert found.chunk_ids == plan.chunk_ids
    for name in COLUMNS:
        assert np.array_equal(getattr(found, name), getattr(plan, name))
        assert getattr(found, name).dtype == np.int32


@pytest.mark.parametrize("content", [b"", b"garbage", b"PAR1 torn PAR1"])
def test_a_damaged_plan_is_one_line_and_is_frozen_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"plan\.parquet: cannot be read \(.*\); delete it"):
        read_plan(path)
    freeze_plan(path, toy_plan())
    assert read_plan(path).chunk_ids == toy_plan().chunk_ids


def test_a_frozen_plan_is_left_alone_until_the_request_changes(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    freeze_plan(path, toy_plan())
    before = path.stat()
    freeze_plan(path, toy_plan())
    assert path.stat().st_ino == before.st_ino
    freeze_plan(path, toy_plan(request="another"))
    assert read_plan(path).request == "another"


def test_a_plan_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    path = tmp_path / "plan.parquet"
    assert find_plan(path) is None
    path.write_bytes(b"garbage")
    assert find_plan(path) is None
    freeze_plan(path, toy_plan())
    found = find_plan(path)
    assert found is not None
    assert found.chunk_ids == toy_plan().chunk_ids


def test_windows_are_rows_of_four_numbers_also_where_there_are_none() -> None:
    rows = window_rows([Window(1, 2, 30, 4), Window(31, 2, 5, 4)])  # column and row, width, height
    assert rows.tolist() == [[2, 1, 4, 30], [2, 31, 4, 5]]
    assert (window_rows([]).shape, rows.dtype) == ((0, 4), np.int32)
