"""Engines: the same parts whoever does the work, and nothing lost with a process."""

import sys
from pathlib import Path

import pytest
from toy_work import Counting, ToyWork, toy_plan

from geohsal.errors import LostError, PartsMissingError, RasterError, RequestError
from geohsal.io.parts import part_path, read_part, write_part
from geohsal.io.plan import freeze_plan
from geohsal.io.run import Run
from geohsal.workflows.engine import (
    Engine,
    Shard,
    chunk_of,
    drop_strangers,
    missing,
    parse_shard,
    read_parts,
    run_chunk,
    run_plan,
)
from geohsal.workflows.progress import Silent
from geohsal.workflows.stages import StageCount, query_folder, stage_counts, tile_folder


def run(
    folder: Path, work: ToyWork | None = None, *, shard: Shard | None = None, **options: object
) -> int:
    values: dict[str, object] = {"workers": 1, "scheduler": None, "progress": Silent()}
    engine = Engine(**(values | options))  # type: ignore[arg-type]
    return run_plan(toy_plan(), work or ToyWork(), folder, shard=shard, engine=engine)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The parts of an undisturbed run in this process."""
    assert run(tmp_path / "whole") == 6
    return content(tmp_path / "whole")


def test_two_processes_give_the_same_parts(tmp_path: Path, whole: dict[str, bytes]) -> None:
    progress = Counting()
    assert run(tmp_path / "two", workers=2, progress=progress) == 6
    assert content(tmp_path / "two") == whole
    assert (progress.said, progress.units) == ([("toy", 14)], 14)


def test_shards_share_the_chunks_out(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "shards"
    assert run(folder, shard=Shard(index=1, count=2)) == 3
    plan = toy_plan()
    assert missing(plan, folder) == list(plan.chunk_ids[::2])
    assert run(folder, shard=Shard(index=1, count=2)) == 0
    assert run(folder, shard=Shard(index=0, count=2)) == 3
    assert content(folder) == whole


def test_more_shards_than_chunks_leave_some_without_work(tmp_path: Path) -> None:
    assert run(tmp_path, shard=Shard(index=7, count=9)) == 0


def test_a_chunk_that_runs_twice_changes_nothing(tmp_path: Path, whole: dict[str, bytes]) -> None:
    folder = tmp_path / "whole"
    run_chunk(ToyWork().open(), folder, chunk_of(toy_plan(), 2))
    assert content(folder) == whole


@pytest.mark.parametrize("damage", ["torn", "gone", "garbage"])
def test_a_damaged_part_is_made_anew(tmp_path: Path, whole: dict[str, bytes], damage: str) -> None:
    folder = tmp_path / "whole"
    path = part_path(folder, toy_plan().chunk_ids[3])
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "torn" else b"garbage")
    assert run(folder) == 1
    assert content(folder) == whole


def test_a_killed_process_is_a_message_and_the_same_command_goes_on(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    trap, folder = tmp_path / "trap", tmp_path / "killed"
    trap.touch()
    with pytest.raises(LostError, match=r"process died .*; run the same command again"):
        run(folder, ToyWork(accident="killed", trap=trap), workers=2)
    trap.unlink()
    assert run(folder, ToyWork(accident="killed", trap=trap), workers=2) > 0
    assert content(folder) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_chunk_arrives_as_it_is(tmp_path: Path, workers: int) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    with pytest.raises(RasterError, match=r"scene s\d: torn"):
        run(tmp_path / "parts", ToyWork(accident="torn", trap=trap), workers=workers)


def test_work_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(RasterError, match="no model here"):
        run(tmp_path / "parts", ToyWork(accident="shut"), workers=2)


def test_parts_are_read_in_plan_order(tmp_path: Path, whole: dict[str, bytes]) -> None:
    plan = toy_plan()
    parts = list(read_parts(plan, tmp_path / "whole"))
    assert [part.manifest["chunk"] for part in parts] == list(plan.chunk_ids)
    assert [part.arrays["corner"].tolist() for part in parts[:3]] == [[0, 4, 8], [12, 16, 20], [24]]


def test_missing_parts_are_counted_with_the_command(tmp_path: Path) -> None:
    run(tmp_path, shard=Shard(index=0, count=3))
    with pytest.raises(PartsMissingError, match=r"4 of 6 parts are missing; run: geohsal toy R"):
        list(read_parts(toy_plan(), tmp_path, command="geohsal toy R"))
    assert PartsMissingError.exit_code == 75


def test_a_part_that_is_damaged_inside_is_removed_for_the_command_to_make_anew(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    folder, plan = tmp_path / "whole", toy_plan()
    path = part_path(folder, plan.chunk_ids[4])
    part = read_part(path)
    assert part is not None
    write_part(path, part.arrays, dict(part.manifest) | {"pad": "x"})
    raw = bytearray(path.read_bytes())
    place = bytes(raw).index(part.arrays["corner"].tobytes()[4:8])
    raw[place] ^= 255
    path.write_bytes(bytes(raw))
    with pytest.raises(PartsMissingError, match="missing or damaged; run: geohsal toy with"):
        list(read_parts(plan, folder))
    assert run(folder) == 1
    assert content(folder) == whole


def test_parts_of_another_plan_are_dropped(tmp_path: Path) -> None:
    run(tmp_path)
    beside = tmp_path / ".abc.0123abcd.part.arrow"
    beside.touch()
    drop_strangers(toy_plan(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 7
    drop_strangers(toy_plan(request="another model"), tmp_path)
    assert list(tmp_path.iterdir()) == [beside]


@pytest.mark.parametrize(
    "text", ["", "1", "2/2", "-1/2", "a/b", "1/0", "0/", "/3", "1/2/3", "0.0/2"]
)
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"--shard .*: write I/N with I from 0 to N-1"):
        parse_shard(text)


def test_a_shard_is_read() -> None:
    assert parse_shard("0/1") == Shard(index=0, count=1)
    assert str(parse_shard("11/12")) == "11/12"


def test_stages_with_a_plan_are_counted(tmp_path: Path) -> None:
    run_ = Run(path=tmp_path)
    assert stage_counts(run_) == []
    freeze_plan(tile_folder(run_).plan, toy_plan())
    freeze_plan(query_folder(run_).plan, toy_plan())
    run(query_folder(run_).parts, shard=Shard(index=0, count=3))
    assert stage_counts(run_) == [
        StageCount(stage="tile", done=0, planned=6),
        StageCount(stage="query", done=2, planned=6),
    ]
    other = stage_counts(run_, {"predict": tmp_path / ".tile_parts"})[-1]
    assert other == StageCount(stage="predict", done=0, planned=6)


def test_dask_gives_the_same_parts(tmp_path: Path, whole: dict[str, bytes]) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        progress = Counting()
        assert run(tmp_path / "dask", scheduler=cluster.scheduler_address, progress=progress) == 6
    assert content(tmp_path / "dask") == whole
    assert progress.units == 14


def test_an_error_under_dask_is_one_error_of_its_kind(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    tries = tmp_path / "tries"
    tries.touch()
    work = ToyWork(accident="counted", trap=tries)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(RasterError, match=r"^scene s\d: torn$"):
            run(tmp_path / "dask", work, scheduler=address)
    assert len(tries.read_text("utf-8")) <= 2, "one per scene at most"


def test_an_address_where_nobody_answers_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("geohsal.workflows.dask_engine.CONNECT_S", 1)
    with pytest.raises(RequestError, match="no scheduler answers there"):
        run(tmp_path, scheduler="tcp://127.0.0.1:1")


def test_without_dask_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(RequestError, match=r"pip install 'geohsal\[dask\]'"):
        run(tmp_path, scheduler="tcp://127.0.0.1:8786")
