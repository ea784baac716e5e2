"""`geohsal config show` and `geohsal config schema`."""

import json

import click

from geohsal.cli import options
from geohsal.cli.report import Report


@click.group("config", no_args_is_help=False)
def command() -> None:
    """Show the settings or their schema."""


@command.command("show")
@options.config
@options.method
@options.overrides
@options.seed
@options.reporting
def show(
    config_source: str | None,
    *,
    method: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    report: Report,
) -> None:
    """Print all settings as YAML, as a run would take them."""
    import yaml

    from geohsal.cli.settings import new_settings
    from geohsal.config import config_to_dict

    quiet = Report(as_json=True)  # the choice of a preset would not be YAML
    config = new_settings(config_source, overrides, seed=seed, report=quiet, method=method)
    values = config_to_dict(config)
    report.result(values, yaml.safe_dump(values, sort_keys=False).splitlines())


@command.command("schema")
@click.option("--cluster", is_flag=True, help="Of a cluster file (geohsal submit) instead.")
@options.reporting
def schema(*, cluster: bool, report: Report) -> None:
    """Print the JSON Schema of the settings.

    Types, defaults, bounds and meaning of every key.
    """
    from geohsal.config import config_schema
    from geohsal.config.cluster import cluster_schema

    values = cluster_schema() if cluster else config_schema()
    report.result(values, json.dumps(values, indent=2).splitlines())
