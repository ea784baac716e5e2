"""Options that several commands share, as decorators."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from geohsal.cli.report import Report, logging_to_stderr

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)

run_argument = click.argument("run_dir", metavar="RUN", type=PATH)

config = click.option(
    "-c",
    "--config",
    "config_source",
    metavar="CONFIG",
    help="YAML file, or a preset: cpu-small, default. Without it: the run's own settings; for a "
    "new run, cpu-small where there is no CUDA, else default.",
)
overrides = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change one setting, such as train.steps=200 (repeatable).",
)


class NamingOption(click.Option):
    """An option whose help ends in names that are looked up only when help is asked for."""

    def __init__(self, *args: Any, names: Callable[[], Iterable[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = names

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]} {', '.join(self._names())}.")


def _method_names() -> Iterable[str]:
    from geohsal.config.methods import load_methods

    return load_methods()


method = click.option(
    "--method",
    metavar="NAME",
    cls=NamingOption,
    names=_method_names,
    help="Settings of a named method, laid over those of -c (or of the run) and under --set:",
)
out_dir = click.option(
    "-o", "--out", metavar="DIR", type=PATH, required=True, help="Where to write."
)
out_file = click.option(
    "-o", "--out", metavar="FILE", type=PATH, required=True, help="File to write."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace an output that differs.")
dry_run = click.option("--dry-run", is_flag=True, help="Check and say what would be done.")
workers = click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes."
)
device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto, cpu, cuda or cuda:N.",
)
shard = click.option(
    "--shard",
    metavar="I/N",
    help="Do the share I of N (I from 0 to N-1) and nothing that needs the shares of others; "
    "without it what is left is done, and all is put together.",
)
scheduler = click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Let the workers of a Dask scheduler do it, such as tcp://host:8786 "
    "(pip install 'geohsal[dask]').",
)
seed = click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")


def reporting(function: F) -> F:
    """Adds -v, -q and --json; the command gets them as `report`, with logging set up."""

    @click.option("-v", "--verbose", count=True, help="Say more (-vv: everything).")
    @click.option("-q", "--quiet", is_flag=True, help="Only results and errors.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
    @functools.wraps(function)
    def command(*args: Any, verbose: int, quiet: bool, as_json: bool, **kwargs: Any) -> Any:
        verbosity = -1 if quiet else min(verbose, 2)
        with logging_to_stderr(verbosity):
            return function(*args, report=Report(as_json=as_json, verbosity=verbosity), **kwargs)

    return command  # type: ignore[return-value]
