"""A query gives the same bytes whoever judges its chunks, and after whatever happened to it."""

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from review_factory import person
from tiny_run import geohsal

from geohsal.errors import (
    BudgetError,
    PartsMissingError,
    RasterError,
    RequestError,
    RunError,
)
from geohsal.io import atomic
from geohsal.io.gpkg_read import is_edited
from geohsal.io.manifest import load_manifest
from geohsal.io.parts import part_path, write_part
from geohsal.io.plan import read_plan
from geohsal.io.run import Run, open_run
from geohsal.workflows import query as query_module
from geohsal.workflows import query_choice, query_score
from geohsal.workflows.map_writer import MapWriter
from geohsal.workflows.progress import Silent
from geohsal.workflows.query import query, score, select
from geohsal.workflows.stages import StageCount, query_folder, stage_counts

BUDGET = "3regions"


@pytest.fixture(scope="module")
def small_chunks() -> object:
    """Chunks of two windows of one stride (the four scenes make 20), and a clock that stands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query_score, "CHUNK_WINDOWS", 2)
        patch.setattr("geohsal.training.collect.CHUNK_STRIDES", 1)
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        yield


def adapt(path: Path, strategy: str = "plar", corrected_cap: float = 0.01) -> Run:
    """The run with settings under which windows and caps matter."""
    run = open_run(path)
    values = yaml.safe_load(run.config.read_text("utf-8"))
    values["query"] |= {"strategy": strategy, "ripu_px": 9}
    values["plar"] |= {"corrected_cap": corrected_cap}
    run.config.write_text(yaml.safe_dump(values), "utf-8")
    return run


@pytest.fixture
def copy(trained: Run, tmp_path: Path, small_chunks: object) -> Callable[..., Run]:
    """`copy(name)`: the trained run in its own folder."""

    def make(name: str, strategy: str = "plar") -> Run:
        shutil.copytree(trained.path, tmp_path / name)
        return adapt(tmp_path / name, strategy=strategy)

    return make


@pytest.fixture(scope="module")
def undisturbed(
    trained: Run, tmp_path_factory: pytest.TempPathFactory, small_chunks: object
) -> Run:
    """The run after a query in one process."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(trained.path, path)
    run = adapt(path)
    query(run.path, budget=BUDGET)
    return run


@pytest.fixture(scope="module")
def expected(undisturbed: Run) -> dict[str, bytes]:
    """What an undisturbed query leaves."""
    return content(undisturbed)


def content(run: Run) -> dict[str, bytes]:
    """Rasters, review files, regions and record of the open round, by name."""
    folder = run.round(0).dir
    kinds = {".tif", ".gpkg", ".qgz", ".html", ".qml", ".parquet", ".npz"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds]
    assert len(files) > 20
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    return found | {"query.json": run.round(0).query_json.read_bytes()}


def test_a_query_leaves_no_parts(undisturbed: Run) -> None:
    assert not query_folder(undisturbed).path.exists()
    assert stage_counts(undisturbed) == []


def test_shards_in_any_order_then_select_give_the_same_bytes(
    copy: Callable[..., Run], expected: dict[str, bytes]
) -> None:
    run = copy("shards")
    for shard, done, left in (("2/3", 6, 14), ("0/3", 7, 7)):
        said = geohsal("query", run.path, "--shard", shard).stdout
        assert f"shard {shard}: {done} of 20 chunks judged now" in said
        assert f"left for other shards: {left} of 20 chunks" in said
    assert stage_counts(run) == [StageCount(stage="query", done=13, planned=20)]
    refused = geohsal("select", run.path, "--budget", BUDGET, code=75)
    assert "7 of 20 parts are missing; run: geohsal query" in refused.stderr
    assert run.round(0).step == "trained"
    said = geohsal("query", run.path, "--shard", "1/3").stdout
    assert f"every chunk is judged; choose with: geohsal select {run.path}" in said
    geohsal("select", run.path, "--budget", BUDGET)
    assert content(run) == expected
    again = geohsal("select", run.path, "--budget", BUDGET).stdout
    assert again.startswith("nothing to do: round 0 is already queried like this")


def test_a_shard_of_a_queried_round_has_nothing_to_do(undisturbed: Run, tmp_path: Path) -> None:
    run = open_run(shutil.copytree(undisturbed.path, tmp_path / "run"))
    summary = score(run.path, shard="0/2")
    assert (summary.done, summary.left, summary.planned) == (0, 0, 0)
    assert select(run.path, budget="2regions", overwrite=True).regions == 2


def test_select_before_anything_is_judged_is_refused(copy: Callable[..., Run]) -> None:
    run = copy("not judged")
    remedy = rf"20 of 20 parts are missing; run: geohsal query '{run.path}' --shard 0/1$"
    with pytest.raises(PartsMissingError, match=remedy):
        select(run.path, budget=BUDGET)


@pytest.mark.parametrize("when", ["judging", "merging"])
def test_a_killed_query_goes_on_and_ends_with_the_same_bytes(
    copy: Callable[..., Run],
    expected: dict[str, bytes],
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = copy("killed")
    count = 0
    where = {"judging": (Silent, "advance"), "merging": (MapWriter, "write")}[when]
    original = getattr(*where)

    def killed_at_8(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(*where, killed_at_8)
        with pytest.raises(KeyboardInterrupt):
            query(run.path, budget=BUDGET)
    assert run.round(0).step == "trained"
    assert 0 < len(list(query_folder(run).parts.iterdir())) <= 20
    if when == "judging":
        plan = read_plan(query_folder(run).plan)
        torn = part_path(query_folder(run).parts, plan.chunk_ids[1])
        torn.write_bytes(torn.read_bytes()[:-20])
        part_path(query_folder(run).parts, plan.chunk_ids[3]).unlink()
    query(run.path, budget=BUDGET)
    assert content(run) == expected


@pytest.mark.slow  # processes load torch
def test_the_threads_of_the_machine_change_nothing(
    copy: Callable[..., Run], expected: dict[str, bytes]
) -> None:
    run, threads = copy("threads"), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        query(run.path, budget=BUDGET)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert content(run) == expected


def test_a_review_that_began_while_a_second_query_worked_is_kept(
    copy: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy("late")
    monkeypatch.setattr(query_module, "changing", lambda *_, **__: nullcontext())  # no locks there
    score(run.path, shard="0/1")
    choose = query_choice.Choice.choose

    def overtaken(self: Any, *arguments: Any, **keys: Any) -> Any:
        monkeypatch.setattr(query_choice.Choice, "choose", choose)
        chosen = choose(self, *arguments, **keys)
        query(run.path, budget=BUDGET)
        with person(run.round(0).queries(), "query_regions") as frame:
            frame.loc[frame.index[0], "notes"] = "seen"
        return chosen

    monkeypatch.setattr(query_choice.Choice, "choose", overtaken)
    with pytest.raises(RunError, match="already queried"):
        select(run.path, budget="5regions")
    assert is_edited(run.round(0).queries())


def test_a_share_that_a_query_overtakes_leaves_nothing(
    copy: Callable[..., Run], expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, work_off = copy("overtaken"), query_score.run_plan

    def overtaken(*arguments: Any, **keys: Any) -> int:
        monkeypatch.setattr(query_score, "run_plan", work_off)
        query(run.path, budget=BUDGET)
        return work_off(*arguments, **keys)

    monkeypatch.setattr(query_score, "run_plan", overtaken)
    assert score(run.path, shard="0/10").done == 2
    assert content(run) == expected
    assert not query_folder(run).path.exists()
    write_part(part_path(query_folder(run).parts, "a" * 32), {}, {})  # of a share that was killed
    assert not query(run.path, budget=BUDGET).changed
    assert not query_folder(run).path.exists()


def test_a_query_that_is_done_removes_what_a_killed_one_set_aside(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(shutil.copytree(undisturbed.path, tmp_path / "run"))
    aside = run.round(0).dir / ".query.0a1b2c3d.part"
    aside.mkdir()
    os.utime(aside, (0, 0))
    monkeypatch.setattr(atomic, "_cleared", set())  # as in a new process
    assert not query(run.path, budget=BUDGET).changed
    assert not aside.exists()


def test_a_queried_round_stays_whole_until_another_choice_is_made(
    undisturbed: Run, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(shutil.copytree(undisturbed.path, tmp_path / "run"))
    record = run.round(0).query_json
    adapt(run.path, corrected_cap=0.2)
    with pytest.raises(BudgetError):
        query(run.path, budget="1px", overwrite=True)
    shutil.rmtree(query_folder(run).path)
    assert content(run) == expected
    moved = query_module.move_maps

    def unrecorded(*arguments: Any) -> None:
        assert not record.exists()
        moved(*arguments)

    monkeypatch.setattr(query_module, "move_maps", unrecorded)
    summary = query(run.path, budget=BUDGET, overwrite=True)
    assert all(path.parent == run.round(0).dir and path.exists() for path in summary.files)
    fresh = open_run(shutil.copytree(undisturbed.path, tmp_path / "fresh"))
    shutil.rmtree(fresh.round(0).rasters)
    shutil.rmtree(fresh.round(0).dir / "parts")
    fresh.round(0).query_json.unlink()
    adapt(fresh.path, corrected_cap=0.2)
    query(fresh.path, budget=BUDGET)
    assert content(run) == content(fresh)
    assert content(run) != expected
    assert list(run.round(0).dir.glob(".*")) == []


def test_what_identifies_a_query_is_hashed_once(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = open_run(shutil.copytree(undisturbed.path, tmp_path / "run")), []
    hashed = query_score.unit_hash

    def counted(*arguments: Any) -> str:
        asked.append(arguments)
        return hashed(*arguments)

    for module in (query_module, query_score):
        monkeypatch.setattr(module, "unit_hash", counted)
    query(run.path, budget="2regions", overwrite=True)
    assert len(asked) == 1


def test_a_dry_run_with_a_scheduler_is_refused(undisturbed: Run) -> None:
    with pytest.raises(RequestError, match="--scheduler tcp://host:1: a dry run works here"):
        query(undisturbed.path, dry_run=True, scheduler="tcp://host:1")


def test_a_query_of_a_relative_run_can_be_judged_elsewhere(
    copy: Callable[..., Run],
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    judged_elsewhere: Callable[[ModuleType], Path],
) -> None:
    run = copy("relative")
    judged_elsewhere(query_score)
    monkeypatch.chdir(tmp_path)
    query(Path("relative"), budget=BUDGET)
    assert content(run) == expected


def test_an_image_that_was_replaced_is_not_judged(
    copy: Callable[..., Run], tiny_landscape: Path, tmp_path: Path
) -> None:
    """One on the same grid: another date, another product."""
    run = copy("replaced")
    folder = tmp_path / "images"
    shutil.copytree(tiny_landscape.parent, folder)
    text = run.manifest.read_text("utf-8")
    run.manifest.write_text(text.replace(str(tiny_landscape.parent), str(folder)), "utf-8")
    score(run.path, shard="0/20")
    path = load_manifest(run.manifest).scenes[0].image
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as image:
        image.write(image.read()[:, ::-1])
    with pytest.raises(RasterError, match=r"not the image .* put the old image back"):
        score(run.path, shard="1/20")


def test_two_processes_give_the_same_bytes(
    copy: Callable[..., Run], expected: dict[str, bytes]
) -> None:
    run = copy("two")
    query(run.path, budget=BUDGET, workers=2)
    assert content(run) == expected


def test_parts_of_another_request_are_dropped(copy: Callable[..., Run]) -> None:
    run = copy("changed")
    score(run.path, shard="0/2")
    before = {path.name for path in query_folder(run).parts.iterdir()}
    adapt(run.path, corrected_cap=0.02)
    score(run.path, shard="1/2")
    after = {path.name for path in query_folder(run).parts.iterdir()}
    assert len(after) == 10
    assert not before & after


def test_a_dry_run_uses_what_shards_judged_and_changes_nothing(copy: Callable[..., Run]) -> None:
    run = copy("dry")
    score(run.path, shard="0/1")
    before = {path: path.stat().st_mtime_ns for path in sorted(run.path.rglob("*"))}
    found = query(run.path, budget=BUDGET, dry_run=True)
    assert (found.regions, found.files) == (3, ())
    assert {path: path.stat().st_mtime_ns for path in sorted(run.path.rglob("*"))} == before


def test_neighbourhoods_reach_over_the_windows(
    copy: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of one stride or of four, so other neighbours: the same regions and scores."""
    fine, coarse = copy("fine", "ripu"), copy("coarse", "ripu")
    query(fine.path, budget=BUDGET)
    monkeypatch.setattr("geohsal.training.collect.CHUNK_STRIDES", 4)
    query(coarse.path, budget=BUDGET)
    one, other = (np.load(run.round(0).dir / "parts" / "west_1.npz") for run in (fine, coarse))
    with one, other:
        assert one["score_sum"].any()
        for name in one.files:
            assert np.array_equal(one[name], other[name]), name
