"""The command `geohsal`: a group that loads a command only when it is asked for.

This module must stay light (no numpy, torch or rasterio): `geohsal --help` answers at once.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from geohsal import __version__
from geohsal.errors import FINAL_CODES, GeohsalError, PartialError

COMMANDS = {
    "tile": "Check a manifest and its rasters, write the tile index of a run.",
    "train": "Train the open round; resumes if interrupted.",
    "query": "Predict, refine, and choose the regions worth asking about.",
    "select": "Choose regions once every share of a query is judged.",
    "answer": "Let an oracle fill a review file from the manifest's truth.",
    "ingest": "Take a reviewed file into labels and ledger, open the next round.",
    "predict": "Write maps of classes, probabilities, error and states.",
    "export": "Write refined pseudo-labels of whole scenes as polygons.",
    "evaluate": "Measure accuracy on the test split.",
    "simulate": "Replay rounds with truth as the oracle: methods, strategies, seeds.",
    "submit": "Submit stages of a run to Slurm as a chain of jobs.",
    "status": "Say where a run stands and what comes next.",
    "report": "Write a page about a run that can be mailed.",
    "doctor": "Say what this machine has, and what to do where it lacks something.",
    "demo": "Run a synthetic example from start to finish.",
    "manifest": "Write the manifest of a benchmark dataset, or first labels for a manifest.",
    "config": "Show the settings or their schema.",
}
MODULES = {"report": "html_report"}
"""Modules of `geohsal.cli` that have another name than their command."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """Knows its commands by name and one line; imports `geohsal.cli.<name>` on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(
            f"geohsal.cli.{MODULES.get(cmd_name, cmd_name)}"
        ).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but every expected failure is one line on stderr and its exit code."""
        argv = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(argv, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(argv, prog_name, complete_var, standalone_mode=False, **extra)
        except (GeohsalError, click.ClickException) as error:
            sys.exit(_explain(error, as_json="--json" in argv))
        except (click.Abort, KeyboardInterrupt):
            click.echo("geohsal: interrupted; the same command goes on from here", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: GeohsalError | click.ClickException, *, as_json: bool) -> int:
    """Print one line per failure; give back the exit code."""
    failures = error.failures if isinstance(error, PartialError) else {}
    if isinstance(error, click.ClickException):
        message, code = error.format_message(), 2
        if isinstance(error, click.UsageError) and error.ctx is not None:
            message = f"{message.rstrip('.')}; see: {error.ctx.command_path} --help"
    else:
        message, code = str(error), error.exit_code
    message = " ".join(message.split())
    click.echo(f"geohsal: error: {message}", err=True)
    for scene_id, reason in failures.items():
        click.echo(f"geohsal: error: {scene_id}: {' '.join(reason.split())}", err=True)
    if as_json:
        click.echo(json.dumps({"error": message, "exit_code": code, "failures": failures}))
    return code


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A first run: geohsal demo. Exit codes: 0 done, 2 the request is wrong, "
    "3 the data is wrong, 4 partial, 75 parts missing, a process lost or the run busy, "
    "85 preempted, 130 interrupted.",
)
@click.version_option(__version__, prog_name="geohsal", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Land-cover maps from very few labels, with a person in QGIS where it pays.

    One turn: tile, train, query, review in QGIS (or answer), ingest; then train again.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Entry point of the program."""
    # torch's threads wait spinning: beside any other work on the machine that takes several times
    # as long as sleeping does, and alone it gains little. Read when torch is loaded, so set here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        cli(prog_name="geohsal")
    except SystemExit as end:
        _tell_job(end.code)
        _leave_others(end.code)
        raise


def _tell_job(code: str | int | None) -> None:
    """Leave the exit code where a job of several processes looks, if no other start changes it."""
    path = os.environ.get("GEOHSAL_FINAL_CODE_FILE")
    if not path or code not in FINAL_CODES:
        return
    with suppress(OSError):  # the first has the word; a full disk has none
        said = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        with suppress(OSError):
            os.write(said, str(code).encode())
        os.close(said)


def _leave_others(code: str | int | None) -> None:
    """One of several processes ends at once, without taking the interpreter down.

    Threads of torch that still listen to another process may abort while it goes away, and the
    launcher would take finished work for a crash (SIGABRT, seen with gloo).
    """
    from geohsal.config.launch import find_launch

    try:
        several = find_launch(os.environ).world > 1
    except GeohsalError:  # said already, where it matters
        return
    if several and (code is None or isinstance(code, int)):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)
