"""The synthetic example from start to finish, through the same functions as the commands."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from geohsal.config import Config, load_config
from geohsal.io.atomic import read_json
from geohsal.io.run import Round, Run
from geohsal.training.ranks import ALONE
from geohsal.workflows.answer import answer
from geohsal.workflows.evaluate import evaluate
from geohsal.workflows.ingest import ingest
from geohsal.workflows.landscape import write_landscape
from geohsal.workflows.picture import draw_round
from geohsal.workflows.progress import Progress, Silent
from geohsal.workflows.query import query
from geohsal.workflows.tile import tile
from geohsal.workflows.train import train

BUDGET = "40regions"
SETTINGS = (
    "train.steps=150",
    "train.crop_px=64",
    "train.batch_labelled=6",
    "train.batch_unlabelled=6",
)
"""Changes to the preset cpu-small that keep two rounds under six minutes on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Accuracy on the test scene after the training of a round; shares from 0 to 1."""

    round: int
    oa: float
    miou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSummary:
    """Where the example lies and what it reached."""

    manifest: Path
    run: Path
    review_file: Path
    picture: Path
    accuracy: tuple[Accuracy, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Demo:
    """What every step of the example needs."""

    out: Path
    run: Run
    config: Config
    device: str
    report: Callable[[str], None]
    progress: Progress


def _ignore(line: str) -> None:
    """Nobody listens."""


def demo(
    out: Path,
    *,
    rounds: int = 2,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    report: Callable[[str], None] = _ignore,
    progress: Progress | None = None,
    shape: tuple[int, int] = (416, 480),
    settings: tuple[str, ...] = SETTINGS,
    budget: str = BUDGET,
) -> DemoSummary:
    """Make a synthetic landscape, then tile, train, query, answer and ingest for some rounds.

    What is finished is kept: an interrupted example goes on where it was.

    Args:
        out: folder of the example; the run is `out/run`.
        rounds: rounds of training; all but the last are answered by the oracle.
        seed: seed of the landscape and of the run.
        device: auto, cpu, cuda or cuda:N.
        overwrite: begin again in a folder that holds an example.
        report: takes the lines that a person reads.
        progress: told how far the long steps are.
        shape: (rows, columns) of every scene.
        settings: changes to the preset cpu-small.
        budget: what every round may ask.

    Raises:
        RequestError: the folder holds an example made with other settings.
    """
    began = time.monotonic()
    if overwrite and (out / "landscape.json").exists():
        shutil.rmtree(out / "run", ignore_errors=True)
    manifest = write_landscape(out, seed=seed, shape=shape, overwrite=overwrite)
    report(f"synthetic landscape (4 scenes in 2 UTM zones, nothing in it is real): {manifest}")
    example = _Demo(
        out=out,
        run=Run(path=out / "run"),
        config=load_config("cpu-small", overrides=[*settings, f"seed={seed}"]),
        device=device,
        report=report,
        progress=progress or Silent(),
    )
    tile(manifest, example.run.path, config=example.config, progress=example.progress)
    report(f"tiled: {example.run.path}")
    accuracy = []
    for index in range(rounds):
        accuracy.append(_learn(example, example.run.round(index)))
        _ask(example, example.run.round(index), budget)
        if index < rounds - 1:
            _take_answers(example, example.run.round(index), seed=seed)
    last = example.run.round(rounds - 1)
    summary = DemoSummary(
        manifest=manifest,
        run=example.run.path,
        review_file=last.queries(),
        picture=draw_round(example.run.path, last.index, out=out / "demo.png"),
        accuracy=tuple(accuracy),
        seconds=time.monotonic() - began,
    )
    for line in summary_lines(summary):
        report(line)
    return summary


def _learn(example: _Demo, round_: Round) -> Accuracy:
    """Train unless trained, evaluate unless evaluated."""
    run_dir, index = example.run.path, round_.index
    if round_.step == "tiled":
        example.report(f"round {index}: training")
        train(run_dir, device=example.device, progress=example.progress, ranks=ALONE)
    if not round_.evaluation.exists():
        evaluate(run_dir, device=example.device, progress=example.progress)
    measured = read_json(round_.evaluation)
    accuracy = Accuracy(round=index, oa=measured["oa"], miou=measured["miou"])
    example.report(f"round {index}: {_words(accuracy)} on the test scene")
    return accuracy


def _ask(example: _Demo, round_: Round, budget: str) -> None:
    """Query unless queried."""
    if round_.step == "trained":
        query(example.run.path, budget=budget, device=example.device, progress=example.progress)
    example.report(f"round {round_.index}: asked about {budget}: {round_.queries()}")


def _take_answers(example: _Demo, round_: Round, *, seed: int) -> None:
    """Let the oracle answer in place of a person, and take its file in, unless that is done."""
    if round_.step == "ingested":
        return
    reviewed = example.out / f"reviewed_r{round_.index:03d}.gpkg"
    if not reviewed.exists():
        answer(example.run.path, round_.queries(), reviewed, seed=seed)
    ingest(example.run.path, [reviewed])
    example.report(f"round {round_.index}: answered by the oracle and taken in: {reviewed}")


def _words(accuracy: Accuracy) -> str:
    return f"overall accuracy {100 * accuracy.oa:.1f} %, mIoU {accuracy.miou:.3f}"


def summary_lines(summary: DemoSummary) -> list[str]:
    """What a person reads at the end."""
    first, last = summary.accuracy[0], summary.accuracy[-1]
    return [
        "",
        f"before any question:  {_words(first)}",
        f"after round {last.round}:        {_words(last)}",
        f"picture:  {summary.picture}",
        f"manifest: {summary.manifest} (copy it for your own data)",
        f"run:      {summary.run} (geohsal status {summary.run})",
        f"review:   {summary.review_file.with_suffix('.qgz')} (open it in QGIS, edit, then: "
        f"geohsal ingest {summary.run} {summary.review_file})",
        f"took {summary.seconds:.0f} s",
    ]
