"""`geohsal simulate`."""

from collections.abc import Iterable
from pathlib import Path

import click

from geohsal.cli import options
from geohsal.cli.report import Report


def _benchmarks() -> Iterable[str]:
    from geohsal.config.simulation import benchmark_names

    return benchmark_names()


@click.command("simulate")
@click.argument("manifest", metavar="MANIFEST", type=options.PATH)
@click.option(
    "-c",
    "--config",
    "config_source",
    metavar="CONFIG",
    required=True,
    cls=options.NamingOption,
    names=_benchmarks,
    help="YAML file with settings and a section simulate, or a shipped benchmark:",
)
@options.overrides
@options.out_dir
@click.option(
    "--jobs",
    metavar="N",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes; each takes a cell at a time and its share of the cores.",
)
@click.option(
    "--only",
    metavar="METHOD[/STRATEGY]",
    multiple=True,
    help="Only these cells of the settings, such as geohsal/plar (repeatable).",
)
@options.overwrite
@options.device
@options.reporting
def command(
    manifest: Path,
    *,
    config_source: str,
    overrides: tuple[str, ...],
    out: Path,
    jobs: int,
    only: tuple[str, ...],
    overwrite: bool,
    device: str,
    report: Report,
) -> None:
    """Replay rounds on scenes with truth: methods, strategies and seeds, with curves and a table.

    Every scene to ask about needs `truth:` in MANIFEST; an oracle answers from it. Interrupted,
    the same command goes on; cells and seeds may be added later.
    """
    from geohsal.config.simulation import load_simulation

    config, simulation = load_simulation(config_source, overrides=overrides)
    from geohsal.workflows.simulate import simulate

    with report.progress() as progress:
        summary = simulate(
            manifest,
            out,
            config=config,
            simulation=simulation,
            jobs=jobs,
            only=only,
            overwrite=overwrite,
            device=device,
            report=report.line,
            progress=progress,
        )
    lines = [*summary.lines, "", f"{summary.rows} rows: {summary.results}"]
    report.result(summary, [*lines, *(f"curves: {path}" for path in summary.pictures)])
