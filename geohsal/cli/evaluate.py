"""`geohsal evaluate`."""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from geohsal.cli import options
from geohsal.cli.report import Report
from geohsal.errors import RequestError

if TYPE_CHECKING:
    from geohsal.geo.area_estimate import Estimate
    from geohsal.workflows.evaluate import Evaluation
    from geohsal.workflows.sample import AreaEvaluation, SampleSummary

MEASURES = {
    "iou": "IoU",
    "f1": "F1",
    "users_accuracy": "user's",
    "producers_accuracy": "producer's",
}


@click.command("evaluate")
@options.run_argument
@options.device
@click.option(
    "--design",
    type=click.Choice(["stratified"]),
    help="Measure by a probability sample of a map instead: draw it with -o, let a person look at "
    "it in QGIS, then give it back with --reference.",
)
@click.option("-o", "--out", metavar="FILE", type=options.PATH, help="Sample to draw (.gpkg).")
@click.option("--reference", metavar="FILE", type=options.PATH, help="Reviewed sample (.gpkg).")
@click.option(
    "--maps",
    metavar="DIR",
    type=options.PATH,
    help="Maps to sample, as predict writes them. Default: those of the newest queried round.",
)
@click.option("--points", type=click.IntRange(min=2), help="Points to draw.")
@click.option(
    "--target-error",
    type=float,
    metavar="SHARE",
    help="Standard error of overall accuracy to aim at, instead of --points (default 0.02).",
)
@options.seed
@options.overwrite
@options.reporting
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run_dir: Path,
    *,
    device: str,
    design: str | None,
    report: Report,
    **sampling: Any,
) -> None:
    r"""Measure the accuracy of RUN's newest model on the test split.

    With --design stratified: overall, user's and producer's accuracy and the area of each class
    with 95 % confidence intervals, from a sample that a person has looked at.

    \b
    geohsal evaluate RUN
    geohsal evaluate RUN --design stratified -o sample.gpkg
    geohsal evaluate RUN --design stratified --reference sample.gpkg
    """
    given = {name for name, value in sampling.items() if value is not None and value is not False}
    if design is not None and ctx.get_parameter_source("device") is ParameterSource.COMMANDLINE:
        raise RequestError(f"--device {device}: not together with --design, which runs no model")
    if design is None:
        if given:
            raise RequestError(f"{_flags(given)}: only with --design stratified")
        _on_test_split(run_dir, device=device, report=report)
    elif "reference" in given:
        if given - {"reference"}:
            raise RequestError(f"{_flags(given - {'reference'})}: not together with --reference")
        _from_sample(run_dir, sampling["reference"], report=report)
    elif "out" in given:
        if {"points", "target_error"} <= given:
            raise RequestError("--points, --target-error: give one of them")
        _draw(run_dir, sampling, report=report)
    else:
        raise RequestError(
            "--design stratified: give -o FILE to draw a sample, or --reference FILE with a "
            "reviewed one"
        )


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def _on_test_split(run_dir: Path, *, device: str, report: Report) -> None:
    from geohsal.workflows.evaluate import evaluate

    with report.progress() as progress:
        evaluation = evaluate(run_dir, device=device, progress=progress)
    report.result(evaluation, evaluation_lines(evaluation))


def _draw(run_dir: Path, sampling: dict[str, Any], *, report: Report) -> None:
    from geohsal.workflows.sample import draw_sample

    out = sampling.pop("out")
    del sampling["reference"]
    if sampling["target_error"] is None:
        del sampling["target_error"]
    summary = draw_sample(run_dir, out, **sampling)
    report.result(summary, sample_lines(summary))


def _from_sample(run_dir: Path, reference: Path, *, report: Report) -> None:
    from geohsal.workflows.sample import evaluate_sample

    evaluation = evaluate_sample(run_dir, reference)
    report.result(evaluation, area_lines(evaluation))


def sample_lines(summary: "SampleSummary") -> Iterator[str]:
    """What was drawn, and what comes next."""
    total = sum(summary.areas.values())
    yield f"{summary.points} points of the {summary.map_of}, seed {summary.seed}"
    for name, number in summary.drawn.items():
        yield f"  {name:20} {number:>6} points, {summary.areas[name] / total:>7.2%} of the map"
    yield f"wrote {summary.out}: set reference_class of each square in QGIS, save, then"
    out = shlex.quote(str(summary.out))
    yield f"  geohsal evaluate RUN --design stratified --reference {out}"


def area_lines(evaluation: "AreaEvaluation") -> Iterator[str]:
    """The estimates as a table; a dash where the sample says nothing."""
    yield (
        f"{evaluation.map_of}: {evaluation.points} points, {evaluation.unanswered} places "
        "not answered; +- is half a 95 % confidence interval"
    )
    yield f"overall accuracy {_interval(evaluation.overall_accuracy)}"
    head = ("user's", "producer's", f"mapped, {evaluation.unit}", f"estimated, {evaluation.unit}")
    yield f"  {'':20} {'points':>6}" + "".join(f"{name:>22}" for name in head)
    for name, row in evaluation.per_class.items():
        area = f"{row.area.value:,.1f} +- {row.area.half_width:,.1f}"
        cells = (_interval(row.users_accuracy), _interval(row.producers_accuracy))
        figures = (*cells, f"{row.mapped_area:,.1f}", area)
        yield f"  {name:20} {row.points:>6}" + "".join(f"{figure:>22}" for figure in figures)
    if evaluation.unanswered:
        yield "points without an answer are left out, as if they were like the others"


def _interval(found: "Estimate | None") -> str:
    return "-" if found is None else f"{found.value:.1%} +- {found.half_width:.1%}"


def evaluation_lines(evaluation: "Evaluation") -> Iterator[str]:
    """The figures as a table; a dash where a class is absent."""
    against = ", ".join(f"{scene} ({what})" for scene, what in evaluation.reference.items())
    yield f"round {evaluation.round}, {evaluation.pixels:,} test pixels against {against}"
    yield (
        f"overall accuracy {evaluation.oa:.2%}, mIoU {evaluation.miou:.4f}, "
        f"macro F1 {evaluation.macro_f1:.4f}, kappa {evaluation.kappa:.4f}"
    )
    yield f"  {'':20} {'pixels':>12}" + "".join(f"{name:>12}" for name in MEASURES.values())
    for name, row in evaluation.per_class.items():
        values = [row[key] for key in MEASURES]
        cells = "".join(f"{'-' if value is None else f'{value:.4f}':>12}" for value in values)
        yield f"  {name:20} {row['pixels']:>12,}{cells}"
    if evaluation.absent:
        yield f"absent here, and in no mean: {', '.join(evaluation.absent)}"
