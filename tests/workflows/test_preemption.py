"""A training that is told to stop, or killed, between any two steps ends as if undisturbed."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import geohsal

from geohsal.cli.preemption import listening
from geohsal.config import load_config
from geohsal.errors import PreemptedError, RunError
from geohsal.io.run import Round, Run, open_run
from geohsal.refine.statistics import LabelledPixels
from geohsal.training.checkpoint import Position, saved_position
from geohsal.training.fit import RoundFit
from geohsal.workflows.train import train

SETTINGS = ("ssl.confidence_fallback=0.2", "ssl.ramp_share=0", "train.checkpoints=2")
"""Pseudo-labels count although the networks are sure of nothing yet; two parts of six steps."""

FILES = ("model.safetensors", "statistics.safetensors")


class Killed(BaseException):
    """As sudden as a signal."""


class Disturb:
    """Progress that does something after a step."""

    def __init__(self, step: int, what: Any) -> None:
        self.steps = 0
        self.at = step
        self.what = what

    def start(self, label: str, total: int) -> None: ...

    def advance(self, amount: int = 1) -> None:
        self.steps += amount
        if self.steps == self.at and amount:
            self.what()

    def done(self) -> None: ...


@pytest.fixture(scope="module")
def tiled(tiny_landscape: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("preempted") / "tiled"
    options = [part for text in SETTINGS for part in ("--set", text)]
    geohsal("tile", tiny_landscape, "-o", folder, "-c", tiny_landscape.parent / "settings.yaml",
            *options)  # fmt: skip
    return open_run(folder)


@pytest.fixture(scope="module")
def whole(tiled: Run, tmp_path_factory: pytest.TempPathFactory) -> Round:
    """Trained without a break."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(tiled.path, folder)
    train(folder)
    return open_run(folder).round(0)


@pytest.fixture
def run(tiled: Run, tmp_path: Path) -> Run:
    shutil.copytree(tiled.path, tmp_path / "run")
    return open_run(tmp_path / "run")


def kill() -> None:
    raise Killed


def usr2() -> None:
    os.kill(os.getpid(), signal.SIGUSR2)


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def request_of(round_: Round) -> str:
    saved: dict[str, Any] = torch.load(round_.checkpoint, weights_only=True)
    request: str = saved["geohsal"]["request"]
    return request


def assert_same(found: Round, whole: Round) -> None:
    for name in FILES:
        assert (found.model_dir / name).read_bytes() == (whole.model_dir / name).read_bytes(), name
    mine, theirs = (json.loads(one.metrics.read_text("utf-8")) for one in (found, whole))
    assert mine["history"] == theirs["history"]
    assert mine["guards"] == theirs["guards"]
    rows = [json.loads(line) for line in found.log.read_text("utf-8").splitlines()]
    assert [row["step"] for row in rows] == [6, 12]
    assert all(row["seconds"] > 0 and row["processes"] == 1 for row in rows)


def test_a_signal_inside_a_part_loses_nothing(run: Run, whole: Round) -> None:
    with listening() as stop, pytest.raises(PreemptedError, match="at step 9 of 12"):
        train(run.path, stop=stop, progress=Disturb(8, usr2))
    round_ = run.round(0)
    assert round_.step == "tiled"
    assert saved_position(round_.checkpoint, request_of(round_)) == Position(step=9)
    progress = Disturb(12, lambda: None)
    train(run.path, progress=progress)
    assert progress.steps == 12
    assert not round_.checkpoint.exists()
    assert_same(round_, whole)


def test_the_command_says_so_in_one_line_and_exits_with_85(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: Any) -> str:
        usr2()  # long before the first step
        return hashed(*_)

    from geohsal.workflows import train_open as workflow

    hashed = workflow.request_hash
    monkeypatch.setattr(workflow, "request_hash", signalled)
    result = geohsal("train", run.path, code=85)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("geohsal: error: ")
    assert "told to stop before the first step; nothing is changed" in line
    assert not run.round(0).dir.exists()


@pytest.mark.parametrize(("looks", "step"), [(1, 0), (2, 6)])
def test_a_signal_while_a_part_is_refreshed_is_obeyed_before_its_first_step(
    run: Run, whole: Round, monkeypatch: pytest.MonkeyPatch, looks: int, step: int
) -> None:
    seen = signalled_at_look(monkeypatch, looks)
    place = "before the first step" if step == 0 else f"at step {step} of 12"
    with listening() as stop, pytest.raises(PreemptedError, match=place):
        train(run.path, stop=stop)
    assert len(seen) == looks
    round_ = run.round(0)
    assert round_.checkpoint.exists() == (step > 0)
    train(run.path)
    assert_same(round_, whole)


def test_a_signal_after_the_last_step_is_obeyed_before_the_final_pass(
    run: Run, whole: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = signalled_at_look(monkeypatch, 3)
    first = RoundFit._train

    def steps(*args: Any) -> None:
        first(*args)
        usr2()

    monkeypatch.setattr(RoundFit, "_train", steps)
    with listening() as stop, pytest.raises(PreemptedError, match="at step 12 of 12"):
        train(run.path, stop=stop)
    assert len(seen) == 2
    monkeypatch.undo()
    train(run.path)
    assert_same(run.round(0), whole)


def signalled_at_look(monkeypatch: pytest.MonkeyPatch, number: int) -> list[None]:
    """A signal comes in the look of that number at the labelled pixels."""
    from geohsal.training import fit

    look, seen = fit.collect_pixels, []

    def collect(*args: Any, **options: Any) -> LabelledPixels:
        seen.append(None)
        if len(seen) == number:
            usr2()
        return look(*args, **options)

    monkeypatch.setattr(fit, "collect_pixels", collect)
    return seen


def test_a_kill_loses_only_what_came_after_the_last_checkpoint(run: Run, whole: Round) -> None:
    config = load_config(run.config, overrides=["train.checkpoint_minutes=1e-9"])
    with pytest.raises(Killed):
        train(run.path, config=config, progress=Disturb(9, kill))
    round_ = run.round(0)
    assert saved_position(round_.checkpoint, request_of(round_)) == Position(step=9)
    train(run.path)
    assert_same(round_, whole)


def test_a_signal_at_the_last_step_leaves_only_the_last_pass(
    run: Run, whole: Round, caplog: pytest.LogCaptureFixture
) -> None:
    with listening() as stop, pytest.raises(PreemptedError, match="at step 12 of 12"):
        train(run.path, stop=stop, progress=Disturb(11, term))
    begun_by_two(run.round(0).checkpoint)
    train(run.path)
    assert "was begun with 2 processes and goes on with 1" in caplog.text
    assert_same(run.round(0), whole)


def begun_by_two(checkpoint: Path) -> None:
    """As if a second process had done nothing."""
    saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    own = saved["geohsal"]
    assert (own["world"], len(own["part"])) == (1, 1)
    own["world"], own["part"] = 2, own["part"] * 2
    torch.save(saved, checkpoint)


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.ckpt"
    assert saved_position(path, "asked") is None
    torch.save({"geohsal": {"request": "other", "step": 3, "world": 2}}, path)
    assert saved_position(path, "other") == Position(step=3, world=2)
    with pytest.raises(RunError, match="an unfinished training with other settings"):
        saved_position(path, "asked")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match=r"cannot be read .* --overwrite starts the round anew"):
        saved_position(path, "other")
