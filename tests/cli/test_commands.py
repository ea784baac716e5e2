"""Each command calls one workflow with what was asked, and reports what comes back."""

import importlib
import json
import logging
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from geohsal.cli import settings
from geohsal.cli.evaluate import evaluation_lines
from geohsal.cli.main import cli
from geohsal.cli.query import score_lines
from geohsal.cli.report import Report, describe, logging_to_stderr, plain
from geohsal.config import Config, config_from_dict, load_config
from geohsal.workflows.query import ScoreSummary


@dataclass(frozen=True)
class Summary:
    path: Path
    regions: int
    share: float
    classes: dict[str, np.int64]


SUMMARY = Summary(Path("RUN/q.gpkg"), 12, float("nan"), {"water": np.int64(5)})


class Recorder:
    """A workflow that remembers how it was called."""

    def __init__(self) -> None:
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Summary:
        self.args, self.kwargs = args, kwargs
        self.kwargs.pop("progress", None)
        return SUMMARY


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Stands in for every workflow."""
    recorder = Recorder()
    for name in ("tile", "train", "query", "answer", "ingest", "predict", "export", "evaluate"):
        module = types.ModuleType(f"geohsal.workflows.{name}")
        for function in (name, "score", "select") if name == "query" else (name,):
            setattr(module, function, recorder)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return recorder


@pytest.mark.parametrize(
    ("argv", "args", "kwargs"),
    [
        (
            "query RUN --budget 2% --packages 3 --overlap 10% --workers 3 --device cpu --dry-run "
            "--scheduler tcp://host:8786",
            (Path("RUN"),),
            {
                "budget": "2%",
                "packages": 3,
                "overlap": "10%",
                "overwrite": False,
                "workers": 3,
                "device": "cpu",
                "scheduler": "tcp://host:8786",
                "dry_run": True,
            },
        ),
        (
            "query RUN --shard 1/4 --workers 2",
            (Path("RUN"),),
            {"shard": "1/4", "workers": 2, "device": "auto", "scheduler": None},
        ),
        (
            "select RUN --budget 9regions --packages 2 --overwrite --workers 4",
            (Path("RUN"),),
            {
                "budget": "9regions",
                "packages": 2,
                "overlap": "0%",
                "overwrite": True,
                "workers": 4,
            },
        ),
        (
            "answer RUN q.gpkg -o r.gpkg --noise 0.1 --slop 2 --seed 4",
            (Path("RUN"), Path("q.gpkg"), Path("r.gpkg")),
            {
                "noise": 0.1,
                "skip": 0.0,
                "slop_px": 2.0,
                "seed": 4,
                "overwrite": False,
            },
        ),
        (
            "ingest RUN a.gpkg b.gpkg --accept-valid",
            (Path("RUN"), (Path("a.gpkg"), Path("b.gpkg"))),
            {"undo": False, "accept_valid": True, "accept_partial": False, "dry_run": False},
        ),
        (
            "ingest RUN --undo",
            (Path("RUN"), ()),
            {"undo": True, "accept_valid": False, "accept_partial": False, "dry_run": False},
        ),
        (
            "predict RUN a.tif -o maps",
            (Path("RUN"), ("a.tif",)),
            {
                "out": Path("maps"),
                "model": None,
                "overwrite": False,
                "workers": 1,
                "device": "auto",
                "shard": None,
                "scheduler": None,
            },
        ),
        (
            "predict a.tif https://host/b.tif --model M -o maps",
            (None, ("a.tif", "https://host/b.tif")),
            {
                "out": Path("maps"),
                "model": Path("M"),
                "overwrite": False,
                "workers": 1,
                "device": "auto",
                "shard": None,
                "scheduler": None,
            },
        ),
        (
            "export RUN -o f.gpkg --what final --sieve 4",
            (Path("RUN"), Path("f.gpkg")),
            {
                "what": "final",
                "sieve_px": 4,
                "simplify_px": None,
                "overwrite": False,
                "shard": None,
                "workers": 1,
                "scheduler": None,
            },
        ),
        ("evaluate RUN", (Path("RUN"),), {"device": "auto"}),
    ],
)
def test_a_command_hands_over_what_was_asked(
    argv: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_lines(argv.split()[0], monkeypatch)
    result = CliRunner().invoke(cli, argv.split())
    assert result.exit_code == 0, result.output
    assert recorder.args == args
    assert recorder.kwargs == kwargs


def without_lines(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command describe the recorder's summary, which has not the fields of its own."""
    module = importlib.import_module(f"geohsal.cli.{name}")
    for function in [item for item in vars(module) if item.endswith("_lines")]:
        monkeypatch.setattr(module, function, lambda summary, *args, **kwargs: None)


@pytest.mark.parametrize("option", ["--budget 3regions", "--packages 2", "--dry-run"])
def test_a_shard_takes_no_choice(option: str, recorder: Recorder) -> None:
    result = CliRunner().invoke(cli, f"query RUN --shard 0/2 {option}".split())
    assert result.exit_code == 2
    assert f"{option.split()[0]}: a shard chooses nothing; give it to geohsal select" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("RUN --seed 0", "--seed: only with --design stratified"),
        ("RUN --design stratified -o s.gpkg --device cpu", "--device cpu: not together with"),
        ("RUN --design stratified --reference s.gpkg --seed 0", "--seed: not together with"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(argv: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["evaluate", *argv.split()])
    assert result.exit_code == 2
    assert said in result.stderr


def test_commands_to_copy_have_their_paths_quoted() -> None:
    summary = ScoreSummary(round=0, shard="0/1", done=1, left=0, planned=1)
    assert list(score_lines(summary, Path("my run")))[-1].endswith("geohsal select 'my run'")


def test_json_is_one_object_and_nothing_else(recorder: Recorder) -> None:
    result = CliRunner().invoke(cli, ["tile", "m.yaml", "-o", "RUN", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "path": "RUN/q.gpkg",
        "regions": 12,
        "share": None,
        "classes": {"water": 5},
    }


def test_people_get_a_line_per_field(recorder: Recorder) -> None:
    result = CliRunner().invoke(cli, ["answer", "RUN", "q.gpkg", "-o", "r.gpkg"])
    assert result.stdout.splitlines() == [
        "path:    RUN/q.gpkg",
        "regions: 12",
        "classes:",
        "  water: 5",
    ]


@pytest.mark.parametrize(("cuda", "preset"), [(True, "default"), (False, "cpu-small")])
def test_the_preset_of_a_new_run_follows_the_machine_and_is_named(
    cuda: bool, preset: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "cuda_present", lambda: cuda)
    without_lines("tile", monkeypatch)
    result = CliRunner().invoke(cli, ["tile", "m.yaml", "-o", "RUN", "--seed", "7"])
    assert f"settings: preset {preset}" in result.stdout
    assert recorder.kwargs["config"] == load_config(preset, overrides=["seed=7"])


def test_settings_of_a_run_are_its_own_unless_asked_for_others(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_lines("train", monkeypatch)
    (tmp_path / "tiles.parquet").touch()
    kept = {"train": {"steps": 77}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept), "utf-8")
    CliRunner().invoke(cli, ["train", str(tmp_path)])
    assert recorder.kwargs["config"] is None
    CliRunner().invoke(cli, ["train", str(tmp_path), "--set", "train.lr=0.5"])
    wanted = {"train": {"steps": 77, "lr": 0.5}}
    assert recorder.kwargs["config"] == config_from_dict(wanted, where="test")


def test_an_evaluation_is_a_table_with_dashes_for_absent_classes() -> None:
    measured = {"iou": 0.5, "f1": 0.6667, "users_accuracy": 0.75, "producers_accuracy": 0.6}
    evaluation: Any = types.SimpleNamespace(  # the real one would load torch
        round=1,
        reference={"east": "truth"},
        pixels=1200,
        oa=0.81234,
        miou=0.5,
        macro_f1=0.6667,
        kappa=0.4,
        per_class={
            "water": {"pixels": 1200, **measured},
            "solar": {"pixels": 0, **dict.fromkeys(measured)},
        },
        absent=("solar",),
    )
    assert list(evaluation_lines(evaluation)) == [
        "round 1, 1,200 test pixels against east (truth)",
        "overall accuracy 81.23%, mIoU 0.5000, macro F1 0.6667, kappa 0.4000",
        "                             pixels         IoU          F1      user's  producer's",
        "  water                       1,200      0.5000      0.6667      0.7500      0.6000",
        "  solar                           0           -           -           -           -",
        "absent here, and in no mean: solar",
    ]


def test_config_show_is_yaml_that_load_config_reads_back(tmp_path: Path) -> None:
    argv = ["config", "show", "-c", "cpu-small", "--set", "train.steps=3", "--seed", "5"]
    result = CliRunner().invoke(cli, argv)
    path = tmp_path / "shown.yaml"
    path.write_text(result.stdout, "utf-8")
    shown = load_config(path)
    assert (shown.train.steps, shown.seed) == (3, 5)
    assert shown.model == load_config("cpu-small").model


def test_config_schema_describes_every_section() -> None:
    result = CliRunner().invoke(cli, ["config", "schema", "--json"])
    schema = json.loads(result.stdout)
    assert set(schema["properties"]) == set(Config.__dataclass_fields__)


def test_plain_turns_sets_of_values_into_what_json_knows() -> None:
    value = {"a": np.float32(0.5), "b": (Path("x"), None), 3: np.array([1, 2]), "c": float("inf")}
    assert plain(value) == {"a": 0.5, "b": ["x", None], "3": [1, 2], "c": None}


def test_describe_indents_and_leaves_out_what_is_empty() -> None:
    values = {"a_b": 0.123456, "none": None, "warnings": ["x", "y"], "rows": [{"k": 1, "v": True}]}
    assert list(describe(values)) == [
        "a b:      0.1235",
        "warnings:",
        "  x",
        "  y",
        "rows:",
        "  k 1, v yes",
    ]


def test_quiet_silences_progress_and_lines_but_not_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(verbosity=-1)
    with report.progress() as progress:
        progress.start("work", 1)
        progress.advance()
    report.line("for people")
    report.result({"done": 1})
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("done: 1\n", "")


@pytest.mark.parametrize(("verbosity", "heard"), [(-1, 0), (0, 1), (1, 2), (2, 3)])
def test_verbosity_sets_what_is_logged(
    verbosity: int, heard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("geohsal.somewhere")
    with logging_to_stderr(verbosity):
        logger.warning("warned")
        logger.info("informed")
        logger.debug("debugged")
    lines = capsys.readouterr().err.splitlines()
    expected = ["geohsal: warning: warned", "geohsal: info: informed", "geohsal: debug: debugged"]
    assert lines == expected[:heard]
    assert not logging.getLogger("geohsal").handlers
