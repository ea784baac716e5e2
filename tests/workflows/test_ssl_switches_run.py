"""Recipes through the real command line: two rounds, a kill in between, the same end."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import geohsal

from geohsal.io.run import Round, Run, open_run
from geohsal.training.model_io import load_model
from geohsal.workflows.context import open_context
from geohsal.workflows.train import initial_networks, train

SELF_TRAINING = (
    "ssl.friend=none",
    "ssl.teacher=previous",
    "ssl.class_mix=classmix",
    "ssl.contrast_weight=0.1",
    "ssl.first_round=1",
    "emd.enabled=false",
    "plar.rule=none",
)

QUICK = ("train.steps=6", "ssl.confidence_fallback=0.2", "ssl.ramp_share=0")
"""Few steps, and pseudo-labels that count although the networks are sure of nothing yet."""


class Killed(BaseException):
    """As sudden as a signal."""


class Kill:
    """Progress that ends the process inside the second of three parts."""

    def __init__(self) -> None:
        self.steps = 0

    def start(self, label: str, total: int) -> None: ...

    def advance(self, amount: int = 1) -> None:
        self.steps += amount
        if self.steps == 3:
            raise Killed

    def done(self) -> None: ...


def tiled(landscape: Path, folder: Path, *overrides: str) -> Run:
    options = [part for text in (*overrides, *QUICK) for part in ("--set", text)]
    geohsal("tile", landscape, "-o", folder, "-c", landscape.parent / "settings.yaml", *options)
    return open_run(folder)


def history(round_: Round) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(round_.metrics.read_text("utf-8"))["history"]
    return found


def same_after_a_kill(run: Run, copy: Path, *, round_index: int) -> None:
    shutil.copytree(run.path, copy)
    train(run.path)
    with pytest.raises(Killed):
        train(copy, progress=Kill())
    assert Run(path=copy).round(round_index).checkpoint.exists()
    train(copy)
    for name in ("model.safetensors", "statistics.safetensors"):
        whole = run.round(round_index).model_dir / name
        assert (Run(path=copy).round(round_index).model_dir / name).read_bytes() == (
            whole.read_bytes()
        )


def test_self_training_by_the_last_round_survives_a_kill(
    tiny_landscape: Path, tmp_path: Path
) -> None:
    run = tiled(tiny_landscape, tmp_path / "run", *SELF_TRAINING)
    train(run.path)
    assert not any({"unsupervised", "contrast"} & row.keys() for row in history(run.round(0)))
    geohsal("query", run.path, "--budget", "4regions")
    geohsal("answer", run.path, run.round(0).queries(), "-o", tmp_path / "reviewed.gpkg")
    geohsal("ingest", run.path, tmp_path / "reviewed.gpkg")
    same_after_a_kill(run, tmp_path / "killed", round_index=1)
    assert all(row["unsupervised"] > 0 and row["contrast"] > 0 for row in history(run.round(1)))
    last = load_model(run.round(0).model_dir).networks.teacher.state_dict()
    networks = initial_networks(open_context(run.path), run.round(1))
    assert networks.previous is not None
    for name, value in networks.previous.state_dict().items():
        assert value.equal(last[name]), name


def test_unimatch_survives_a_kill(tiny_landscape: Path, tmp_path: Path) -> None:
    run = tiled(tiny_landscape, tmp_path / "run", "ssl.consistency=unimatch", "ssl.friend=head")
    same_after_a_kill(run, tmp_path / "killed", round_index=0)
    assert history(run.round(0))[-1]["unsupervised"] > 0


def test_the_linear_probe_is_the_same_after_a_kill_and_teaches_from_the_first_step(
    tiny_landscape: Path, tmp_path: Path
) -> None:
    options = ("ssl.probe_weight=0.5", "ssl.warm_share=0.5")
    run = tiled(tiny_landscape, tmp_path / "run", *options)
    same_after_a_kill(run, tmp_path / "killed", round_index=0)
    first, *_, last = history(run.round(0))
    assert first["probe"] > last["probe"] > 0
    assert "unsupervised" not in first
    assert last["unsupervised"] > 0
    calm = tiled(tiny_landscape, tmp_path / "calm", "ssl.probe_weight=0", *options[1:])
    train(calm.path)
    assert not any("probe" in row for row in history(calm.round(0)))
