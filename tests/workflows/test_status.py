"""Status reads where a run stands from its files, and names the next command."""

from pathlib import Path

import numpy as np
import pytest

from geohsal.config import load_config
from geohsal.errors import RunError
from geohsal.io.atomic import write_json
from geohsal.io.ledger import LedgerEntry, append
from geohsal.io.parts import part_path, write_part
from geohsal.io.plan import SceneUnits, make_plan, write_plan
from geohsal.io.run import Run, open_run
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.stages import query_folder
from geohsal.workflows.status import status, status_lines
from geohsal.workflows.tile import tile


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly tiled run of the small synthetic example."""
    folder = tmp_path_factory.mktemp("status run")
    manifest = write_landscape(folder, seed=3, shape=(192, 224))
    tile(manifest, folder / "run", config=load_config("cpu-small"))
    return folder / "run"


@pytest.fixture
def run(tiled: Path) -> Run:
    """The run without rounds and ledger."""
    run = open_run(tiled)
    for path in sorted(run.path.glob("round_*/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    run.ledger.unlink(missing_ok=True)
    return run


def answered(round_: int, *, pixels: int, area_m2: float | None = 4096.0) -> LedgerEntry:
    return LedgerEntry(
        event="ingest",
        round=round_,
        time="2026-01-01T00:00:00Z",
        scene_id="west_1",
        region_id=f"west_1_{pixels}",
        region_number=1,
        cell=(0, 0, 32, 32),
        pixels=pixels,
        labelled_pixels=pixels,
        area_m2=area_m2,
        seconds=90.0,
        status="done",
        classes_rle="255*1024",
    )


def test_a_tiled_run_wants_training_and_counts_its_labels(run: Run) -> None:
    summary = status(run.path)
    assert (summary.name, summary.scenes) == ("synthetic-landscape", 4)
    assert [item.step for item in summary.rounds] == ["tiled"]
    assert list(summary.labelled_pixels) == [
        "water",
        "woodland",
        "meadow",
        "cropland",
        "built_up",
        "solar",
    ]
    assert all(count > 0 for count in summary.labelled_pixels.values())
    assert summary.spent_pixels == 0
    assert summary.next_command == f"geohsal train '{run.path}'"


def test_an_interrupted_training_is_resumed(run: Run) -> None:
    run.round(0).dir.mkdir(exist_ok=True)
    run.round(0).checkpoint.touch()
    assert status(run.path).next_step == "resume the training of round 0"


def test_a_trained_round_is_queried_and_a_queried_one_reviewed(run: Run) -> None:
    round_ = run.round(0)
    write_json(round_.model_json, {})
    assert status(run.path).next_command == f"geohsal query '{run.path}' --budget 200regions"
    write_json(round_.query_json, {})
    round_.queries().touch()
    summary = status(run.path)
    assert summary.rounds[0].step == "queried"
    assert summary.next_command == f"geohsal ingest '{run.path}' '{round_.queries()}'"
    assert summary.next_step.startswith(f"review {round_.queries()} in QGIS, save")


def test_what_to_open_is_named_for_every_package(run: Run) -> None:
    round_ = run.round(0)
    write_json(round_.model_json, {})
    files = [round_.queries(package=number) for number in (1, 2)]
    for path in (*files, round_.dir / "queries_r000_p1_anna.gpkg"):
        path.touch()
        path.with_suffix(".qgz").touch()
        path.with_suffix(".html").touch()
    write_json(round_.query_json, {"summary": {"files": [path.name for path in files]}})
    projects, pages = (
        ", ".join(str(path.with_suffix(suffix)) for path in files) for suffix in (".qgz", ".html")
    )
    summary = status(run.path)
    assert summary.next_step == (
        f"review {projects} in QGIS (or {pages} in a browser), save, and take the answers of "
        "round 0 in"
    )
    assert summary.next_command == f"geohsal ingest '{run.path}' '{files[0]}' '{files[1]}'"


def test_what_was_spent_is_summed_per_round_and_undone_rounds_do_not_count(run: Run) -> None:
    for name in ("model_json", "query_json", "ingest_json"):
        write_json(getattr(run.round(0), name), {})
    write_json(run.round(0).evaluation, {"oa": 0.75, "miou": 0.5})
    undo = LedgerEntry(event="undo", round=0, time="2026-01-01T00:00:00Z")
    append(run.ledger, [answered(0, pixels=7)])
    append(run.ledger, [undo])
    append(run.ledger, [answered(0, pixels=1000), answered(0, pixels=500)])
    summary = status(run.path)
    first, second = summary.rounds
    assert (first.regions, first.spent_pixels, second.regions) == (2, 1500, 0)
    assert first.spent_ha == pytest.approx(0.8192)
    assert summary.spent_minutes == pytest.approx(3.0)
    assert (
        "round 0: ingested, 2 regions answered (1,500 px, 0.82 ha, 3 min), "
        "overall accuracy 75.0 %, mIoU 0.500"
    ) in status_lines(summary)


def test_regions_without_an_area_leave_hectares_out(run: Run) -> None:
    append(run.ledger, [answered(0, pixels=10, area_m2=None)])
    summary = status(run.path)
    assert summary.spent_ha is None
    assert "spent: 10 px, 2 min" in status_lines(summary)


def test_shares_that_are_done_are_counted_against_the_plan(run: Run) -> None:
    folder = query_folder(run)
    plan = make_plan(
        "query",
        request="r",
        scenes=[SceneUnits(scene_id="a", fingerprint="f", windows=np.arange(12).reshape(3, 4))],
        chunk_units=1,
    )
    write_plan(folder.plan, plan)
    write_part(part_path(folder.parts, plan.chunk_ids[0]), {}, {"chunk_id": plan.chunk_ids[0]})
    summary = status(run.path)
    assert [(item.stage, item.done, item.planned) for item in summary.parts] == [("query", 1, 3)]
    assert "query: 1 of 3 parts done" in status_lines(summary)
    assert summary.jobs is None


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run \(no tiles.parquet in it\)"):
        status(tmp_path)
