"""`geohsal train`."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geohsal.cli import options
from geohsal.cli.preemption import listening
from geohsal.cli.report import Report
from geohsal.cli.settings import cuda_present
from geohsal.errors import QuietError

if TYPE_CHECKING:
    from geohsal.config import Config
    from geohsal.config.launch import Launch
    from geohsal.workflows.outlooks import TrainOutlook
    from geohsal.workflows.train import TrainSummary


@click.command("train")
@options.run_argument
@options.config
@options.method
@options.overrides
@options.device
@options.seed
@options.overwrite
@options.dry_run
@options.reporting
def command(
    run_dir: Path,
    *,
    config_source: str | None,
    method: str | None,
    overrides: tuple[str, ...],
    device: str,
    seed: int | None,
    overwrite: bool,
    dry_run: bool,
    report: Report,
) -> None:
    """Train the open round of RUN; an interrupted training goes on where it was.

    On several GPUs: srun or torchrun start this same command once per GPU. SIGUSR2 or SIGTERM
    stop it after the step, refresh or look under way; a checkpoint holds all steps, and the exit
    code is 85. With --dry-run labels are counted, steps told, and nothing is changed.
    """
    from geohsal.config.launch import find_launch

    launch = find_launch(os.environ)
    if dry_run:
        if launch.speaks:
            config = _settings(
                run_dir, config_source, overrides, seed=seed, report=report, method=method
            )
            _foresee(run_dir, config, report, device=device, overwrite=overwrite)
        return
    with listening(to_the_end=launch.world > 1) as stop, one_voice(launch):
        from geohsal.training.ranks import joined

        with joined(launch, cuda=lambda: device != "cpu" and cuda_present(), stop=stop) as ranks:
            config = ranks.together(
                lambda: _settings(
                    run_dir, config_source, overrides, seed=seed, report=report, method=method
                )
            )
            from geohsal.workflows.train import train

            with report.progress() as progress:
                summary = train(
                    run_dir,
                    config=config,
                    device=device,
                    overwrite=overwrite,
                    progress=progress,
                    stop=stop,
                    ranks=ranks,
                )
        if launch.speaks:
            _tell(run_dir, summary, report)


def _settings(
    run_dir: Path,
    source: str | None,
    overrides: tuple[str, ...],
    *,
    seed: int | None,
    report: Report,
    method: str | None,
) -> "Config | None":
    """The settings asked for; alone, a folder that is no run is refused before torch is loaded."""
    from geohsal.cli.settings import run_settings
    from geohsal.io.run import open_run

    open_run(run_dir)
    return run_settings(run_dir, source, overrides, seed=seed, report=report, method=method)


def _foresee(
    run_dir: Path, config: "Config | None", report: Report, *, device: str, overwrite: bool
) -> None:
    from geohsal.workflows.train_outlook import foresee_training

    outlook = foresee_training(run_dir, config=config, device=device, overwrite=overwrite)
    report.result(outlook, outlook_lines(outlook))


def outlook_lines(outlook: "TrainOutlook") -> Iterator[str]:
    """What would be read, spent and written."""
    if outlook.would == "nothing":
        yield f"round {outlook.round}: nothing to do, it is trained: {outlook.model}"
        return
    processes = f", {outlook.processes} processes" if outlook.processes > 1 else ""
    if outlook.would == "go on":
        steps = f"go on at step {outlook.steps_done} of {outlook.steps}"
    else:
        steps = f"train {outlook.steps} steps"
    yield f"round {outlook.round}: would {steps} on {outlook.device}{processes}"
    yield f"would start from {outlook.starts_from}"
    yield f"would read the train tiles of: {', '.join(outlook.scenes)}"
    yield (
        f"would learn from {sum((outlook.labelled_pixels or {}).values()):,} labelled pixels in "
        f"{outlook.regions} regions, {outlook.withheld_regions} of them withheld to calibrate"
    )
    for name, count in (outlook.labelled_pixels or {}).items():
        yield f"  {name:20} {count:>12,} px"
    if outlook.classes_missing:
        yield _missing(outlook.classes_missing)
    chosen = ", ".join(outlook.val_scenes)
    yield f"the best teacher would be chosen by: {chosen or 'nothing, the last one is kept'}"
    yield f"would write: {outlook.model}"
    yield "nothing is changed"


def _missing(names: Sequence[str]) -> str:
    return f"without any label: {', '.join(names)}"


def _tell(run_dir: Path, summary: "TrainSummary", report: Report) -> None:
    from geohsal.io.run import open_run
    from geohsal.workflows.stop_advice import stop_advice

    advice = stop_advice(open_run(run_dir))
    lines = [*train_lines(summary, verbose=report.verbosity > 0)]
    report.result(summary, [*lines, f"advice: {advice.message}"] if advice else lines)


@contextmanager
def one_voice(launch: "Launch") -> Iterator[None]:
    """Of several processes only the first speaks; another one only of what it alone knows."""
    if launch.world > 1:  # before torch is loaded: its C++ part warns on every process
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    with warnings.catch_warnings():
        if not launch.speaks:
            warnings.simplefilter("ignore")
            logging.getLogger("geohsal").setLevel(logging.CRITICAL)
        try:
            yield
        except QuietError as error:
            raise SystemExit(error.code) from None


def train_lines(summary: "TrainSummary", *, verbose: bool) -> Iterator[str]:
    """What was learnt from, and what could not be calibrated (-v: why)."""
    what = f"trained in {summary.seconds:.0f} s" if summary.changed else "was trained before"
    yield f"round {summary.round}: {what}, {summary.steps} steps: {summary.model}"
    yield (
        f"learnt from {sum(summary.labelled_pixels.values()):,} labelled pixels in "
        f"{summary.regions} regions, {summary.withheld_regions} of them withheld to calibrate"
    )
    if summary.val_miou is not None:
        yield f"mIoU on the val split: {summary.val_miou:.4f}"
    if summary.classes_missing:
        yield _missing(summary.classes_missing)
    if summary.fallbacks:
        count = len(summary.fallbacks)
        yield f"{count} thresholds are fallbacks until more is labelled (-v lists them)"
    if verbose:
        yield from (f"  {line}" for line in summary.fallbacks)
    yield from (f"warning: {line}" for line in summary.warnings)
