"""Rounds replayed with truth as the oracle: shared starts, resuming, failures, rows, refusals."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from tiny_run import TINY_SETTINGS, geohsal

from geohsal.config import Config
from geohsal.config.simulation import SimulateConfig, load_simulation
from geohsal.errors import ConfigError, DataError, LabelError, PartialError, RequestError, RunError
from geohsal.io.ledger import read_ledger
from geohsal.io.manifest import load_manifest
from geohsal.io.run import Run
from geohsal.training import forest
from geohsal.workflows import simulate_cell as room
from geohsal.workflows import simulate_work
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.progress import Silent
from geohsal.workflows.simulate import SimulateSummary, simulate
from geohsal.workflows.simulate_plan import Folder, Task, claim, with_starts
from geohsal.workflows.simulate_rows import Origin

FAST = ("train.steps=2", "train.checkpoints=1", "query.region_px=16", "query.audit_share=0")
SECTION: dict[str, Any] = {
    "rounds": 2,
    "seeds": [3],
    "budget": "3regions",
    "cells": [
        {"method": "full"},
        {"method": "geohsal", "strategies": ["plar", "random"]},
        {"method": "forest"},
    ],
}
Claimed = tuple[Folder, Config, SimulateConfig]
STEPS = ("tile", "train", "evaluate", "measure_forest", "query", "answer", "ingest")


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of a synthetic landscape; settings of a simulation lie beside it."""
    folder = tmp_path_factory.mktemp("landscape")
    manifest = write_landscape(folder, shape=(192, 224))
    settings = yaml.safe_load(TINY_SETTINGS) | {"simulate": SECTION}
    (folder / "simulation.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return manifest


@pytest.fixture(scope="module", autouse=True)
def small_forest() -> Iterator[None]:
    """Ten trees instead of three hundred."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "TREES", 10)
        yield


def replay(manifest: Path, out: Path, *changes: str, **options: Any) -> SimulateSummary:
    """Simulate with the settings beside the manifest."""
    config, simulation = load_simulation(
        manifest.parent / "simulation.yaml", overrides=[*FAST, *changes]
    )
    return simulate(manifest, out, config=config, simulation=simulation, device="cpu", **options)


@pytest.fixture(scope="module")
def finished(landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation by the command line, whose cell `random` failed at first."""
    out = tmp_path_factory.mktemp("finished") / "out"
    words = ["simulate", landscape, "-c", landscape.parent / "simulation.yaml", "-o", out]
    words += [word for change in FAST for word in ("--set", change)] + ["--device", "cpu"]
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        real, train = room.query, room.train

        def fail(run_dir: Path, **options: Any) -> Any:
            if run_dir.name == "random":
                raise DataError("the disk is on fire")
            return real(run_dir, **options)

        def count(run_dir: Path, **options: Any) -> Any:
            calls[f"{run_dir.parent.name}/{run_dir.name}"] += 1
            return train(run_dir, **options)

        patch.setattr(room, "train", count)
        with patch.context() as broken:
            broken.setattr(room, "query", fail)
            said = geohsal(*words, code=4)
        assert "geohsal/random, seed 3: the disk is on fire" in said.stderr
        before = {path.name for path in (out / "cells").iterdir()}
        assert {"geohsal.plar.s3.r1.json", "forest.plar.s3.r1.json"} < before
        assert "geohsal.random.s3.r1.json" not in before
        assert "geohsal/random, seed 3: done" in geohsal(*words).stdout
    assert calls == {"full/all": 1, "geohsal/round0": 1, "geohsal/plar": 1, "geohsal/random": 1}
    return out


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_cell_and_round_has_a_row_with_every_column(finished: Path) -> None:
    rows = rows_of(finished)
    places = [(row["method"], row["strategy"], row["round"]) for row in rows]
    both = [(m, s, r) for m in ("forest", "geohsal") for s in ("plar", "random") for r in "01"]
    assert sorted(places) == sorted([*both, ("full", "all", "0")])
    assert all(row["dataset"] == "synthetic-landscape" and row["seed"] == "3" for row in rows)
    empty = {name for row in rows for name, value in row.items() if value == ""}
    assert empty == {"spent_ha", "spent_min", "regions"}, "only of all labels"
    assert {"iou_water", "iou_solar", "kappa", "macro_f1", "commit", "machine"} <= set(rows[0])
    table = pd.read_parquet(finished / "results.parquet")
    assert list(table.columns) == list(rows[0])
    assert table["miou"].tolist() == [float(row["miou"]) for row in rows]


def test_every_queried_round_is_measured_against_the_truth_of_its_pool(finished: Path) -> None:
    with (finished / "diagnostics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["method"], r["strategy"], r["seed"], r["round"]) for r in rows] == [
        ("geohsal", "plar", "3", "0"),
        ("geohsal", "random", "3", "0"),
    ]
    for row in rows:
        assert 0 <= float(row["emd_auroc"]) <= 1
        assert 0 < float(row["pool_error_rate"]) < 1
    # the same model in the same pool, other questions
    assert rows[0]["pool_error_rate"] == rows[1]["pool_error_rate"]


def test_round_0_is_shared_and_spending_is_the_ledgers(finished: Path) -> None:
    rows = {(r["method"], r["strategy"], r["round"]): r for r in rows_of(finished)}
    for method in ("geohsal", "forest"):
        first, second = rows[method, "plar", "0"], rows[method, "random", "0"]
        assert first | {"strategy": "random"} == second
        assert (first["spent_pixels"], first["regions"]) == ("0", "0")
    for strategy in ("plar", "random"):
        entries = read_ledger(Run(path=finished / f"runs/3/geohsal/{strategy}").ledger)
        asked = sum(entry.pixels for entry in entries)
        row, start = rows["geohsal", strategy, "1"], rows["geohsal", strategy, "0"]
        assert int(row["spent_pixels"]) == asked > 0
        assert float(row["spent_ha"]) == pytest.approx(asked * 4 / 1e4, rel=0.01)
        assert int(row["regions"]) == len(entries) == 3
        labelled = int(row["labelled_pixels"]) - int(start["labelled_pixels"])
        assert labelled == sum(entry.labelled_pixels for entry in entries)
        assert rows["forest", strategy, "1"]["labelled_pixels"] == row["labelled_pixels"]
    assert float(rows["full", "all", "0"]["spent_share"]) == 1


def test_finished_cells_keep_records_but_no_models(finished: Path) -> None:
    run = Run(path=finished / "runs/3/geohsal/plar")
    assert run.round(0).ingest_json.exists()
    assert (run.round(0).dir / "reviewed_queries_r000.gpkg").exists()
    assert run.ledger.exists()
    assert not list(finished.rglob("model.safetensors"))
    assert not list(finished.rglob("rasters"))


def test_summary_and_curves_are_written(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert {(item["method"], item["strategy"]) for item in summary["figures"]} == {
        (method, strategy) for method in ("geohsal", "forest") for strategy in ("plar", "random")
    }
    table = (finished / "summary.md").read_text()
    assert "| geohsal | plar | 1 |" in table
    assert "share for 95%" in table
    for name in ("curves.png", "curves.svg", "curves_classes.png"):
        assert (finished / name).stat().st_size > 10_000
    assert "estimated review time (min)" in (finished / "curves.svg").read_text()


def test_done_again_nothing_is_done(finished: Path, landscape: Path, monkeypatch: Any) -> None:
    for step in STEPS:
        monkeypatch.setattr(room, step, pytest.fail)
    again = replay(landscape, finished)
    assert (again.done, again.kept, again.rows) == (0, 3, 9)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("simulate.budget=4regions", "simulate.budget"),
        ("train.lr=0.01", "config.train.lr"),
        ("simulate.noise.label=0.1", "simulate.noise.label"),
    ],
)
def test_another_simulation_in_the_folder_is_refused(
    finished: Path, landscape: Path, change: str, key: str
) -> None:
    with pytest.raises(RequestError, match=f"holds a simulation with another {key};"):
        replay(landscape, finished, change)


@pytest.fixture
def claimed(landscape: Path, tmp_path: Path) -> Claimed:
    """The folder of a simulation that has not begun, and what was asked for."""
    config, simulation = load_simulation(landscape.parent / "simulation.yaml")
    folder = Folder(path=tmp_path / "out")
    claim(folder, load_manifest(landscape), config, simulation, overwrite=False)
    return folder, config, simulation


def test_a_setting_that_did_not_exist_yet_is_no_other_simulation(
    claimed: Claimed, landscape: Path
) -> None:
    (folder, config, simulation), manifest = claimed, load_manifest(landscape)
    written = folder.record.read_text("utf-8")
    older = json.loads(written)
    del older["request"]["config"]["train"]["checkpoint_minutes"]
    folder.record.write_text(json.dumps(older), "utf-8")
    claim(folder, manifest, config, simulation, overwrite=False)
    assert folder.record.read_text("utf-8") == written
    older["request"]["config"]["train"]["checkpoint_minutes"] = 3.5
    folder.record.write_text(json.dumps(older), "utf-8")
    with pytest.raises(RequestError, match=r"another config\.train\.checkpoint_minutes;"):
        claim(folder, manifest, config, simulation, overwrite=False)


def test_another_manifest_is_refused_and_overwrite_begins_anew(
    claimed: Claimed, landscape: Path
) -> None:
    folder, config, simulation = claimed
    for part in (folder.cells, folder.diagnoses):
        part.mkdir()
        (part / "old.json").write_text("{}")
    derived = ("results.csv", "results.parquet", "diagnostics.csv", "summary.md", "curves.png")
    for name in (*derived, "notes.txt"):
        (folder.path / name).write_text("old")
    text = landscape.read_text().replace("synthetic-landscape", "other")
    other = landscape.with_name("other.yaml")
    other.write_text(text)
    with pytest.raises(RequestError, match="another manifest; choose another folder"):
        claim(folder, load_manifest(other), config, simulation, overwrite=False)
    claim(folder, load_manifest(other), config, simulation, overwrite=True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["notes.txt", "simulate.json"]


def test_a_folder_of_other_things_is_left_alone(landscape: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="is no simulation and not empty"):
            replay(landscape, tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").exists()


def test_killed_at_every_step_it_goes_on_to_the_same_rows(
    finished: Path, landscape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    train = room.train

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def count(run_dir: Path, **options: Any) -> Any:
        trained.append(run_dir.name)
        return train(run_dir, **options)

    monkeypatch.setattr(room, "train", count)
    steps = ("tile", "train", "evaluate", "measure_forest", "write_config", "query", "answer")
    for name in (*steps, "ingest"):
        with monkeypatch.context() as patch:
            patch.setattr(room, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                replay(landscape, tmp_path, only=["geohsal/random"])
    with monkeypatch.context() as patch:  # in round 1, between its training and its row
        patch.setattr(room, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            replay(landscape, tmp_path, only=["geohsal/random"])
    assert replay(landscape, tmp_path, only=["geohsal/random"]).done == 1
    assert trained == ["round0", "random"], "a finished training was done again"
    timed = {"train_seconds": "0"}
    expected = [row | timed for row in rows_of(finished) if row["strategy"] == "random"]
    assert [row | timed for row in rows_of(tmp_path)] == expected
    assert list((tmp_path / "runs/3/geohsal/round0").rglob("model.safetensors")), "plar is to come"


def test_the_oracle_gets_noise_and_seed(
    landscape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, simulation = load_simulation(
        landscape.parent / "simulation.yaml",
        overrides=["simulate.noise={label: 0.5, skip: 0.25, slop_px: 1}"],
    )
    study = room.Study(
        folder=Folder(path=tmp_path),
        manifest=load_manifest(landscape),
        config=config,
        simulate=simulation,
        device="cpu",
        origin=Origin(commit="c", machine="m"),
    )
    files = (tmp_path / "queries_a.gpkg", tmp_path / "queries_b.gpkg")
    given: list[Any] = []
    monkeypatch.setattr(room, "query", lambda *_, **how: SimpleNamespace(files=files, **how))
    monkeypatch.setattr(room, "answer", lambda *what, **how: given.append((*what, how)))
    monkeypatch.setattr(room, "ingest", lambda run_dir, reviewed: given.append(reviewed))
    task = Task(method="geohsal", strategy="plar", seed=3)
    room._ask(study, task, Run(path=tmp_path).round(0), Silent())
    noise = {"noise": 0.5, "skip": 0.25, "slop_px": 1.0, "seed": 3}
    outs = [tmp_path / "reviewed_queries_a.gpkg", tmp_path / "reviewed_queries_b.gpkg"]
    asked = [(tmp_path, path, out, noise) for path, out in zip(files, outs, strict=True)]
    assert given == [*asked, outs]


def test_a_mistake_of_geohsal_leaves_a_traceback_and_other_cells_go_on(
    landscape: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: object, task: Task, __: object) -> None:
        if task.method != "full":
            raise ZeroDivisionError("oops")

    monkeypatch.setattr(simulate_work, "run_task", stumble)
    with pytest.raises(PartialError, match="3 cells failed") as partial:
        replay(landscape, tmp_path)
    assert partial.value.failures == {
        "geohsal/round 0, seed 3": "ZeroDivisionError: oops; a mistake of geohsal, please report "
        f"{tmp_path / 'errors' / 'geohsal.round0.s3.txt'}",
        "geohsal/plar, seed 3": "its round 0 failed (geohsal/round 0, seed 3)",
        "geohsal/random, seed 3": "its round 0 failed (geohsal/round 0, seed 3)",
    }
    assert "oops" in (tmp_path / "errors" / "geohsal.round0.s3.txt").read_text()


@pytest.mark.slow
def test_processes_share_the_cells(landscape: Path, tmp_path: Path) -> None:
    cells = "simulate.cells=[{method: supervised, strategies: [random]}]"
    changes = (cells, "simulate.seeds=[1, 2]", "simulate.rounds=1")
    summary = replay(landscape, tmp_path, *changes, jobs=2)
    assert (summary.done, summary.rows) == (2, 2)
    assert {row["seed"] for row in rows_of(tmp_path)} == {"1", "2"}


def test_what_cannot_be_asked_is_refused_before_any_work(landscape: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unknown = "simulate.cells=[{method: geohsal, strategies: [plarr]}]"
    with pytest.raises(ConfigError, match=r"query\.strategy.*plarr"):
        replay(landscape, out, unknown)
    with pytest.raises(RequestError, match="--only geohsal/emd: no such cell; there are: full, "):
        replay(landscape, out, only=["geohsal/emd"])
    blind = landscape.with_name("blind.yaml")
    truth = "    truth: {path: truth/west_2.tif, ignore: [255]}\n"
    blind.write_text(landscape.read_text().replace(truth, ""))
    with pytest.raises(LabelError, match="scene 'west_2' has no truth to answer from"):
        simulate(
            blind,
            out,
            **dict(
                zip(
                    ("config", "simulation"),
                    load_simulation(landscape.parent / "simulation.yaml"),
                    strict=True,
                )
            ),
        )
    assert not out.exists()


def test_work_goes_cell_by_cell_with_each_round_0_before_what_needs_it() -> None:
    def task(method: str, strategy: str, seed: int) -> Task:
        return Task(method=method, strategy=strategy, seed=seed)

    wanted = [task("geohsal", "plar", 0), task("geohsal", "plar", 1), task("full", "", 0)]
    wanted += [task("geohsal", "random", 1), task("tsf", "random", 0)]
    starts = [task("geohsal", "", 0), task("geohsal", "", 1)]
    assert list(with_starts(wanted)) == [
        *starts, *wanted[:4], task("tsf", "", 0), wanted[4]
    ]  # fmt: skip
