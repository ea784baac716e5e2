"""Commands in a process of their own, with a limit of time and of memory; how it ended."""

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import FORKS

ADDRESSES = 2 * 2**30
"""Bytes of address space that commands may take beyond what their process starts with."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One command: its exit code, all that it and its libraries wrote, and what it took."""

    code: int
    text: str
    seconds: float
    peak_mib: float

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


def run_boxed(commands: Sequence[Sequence[str]], folder: Path, *, seconds: float) -> list[Ended]:
    """Run commands one after the other in one process; its death is no result but an error.

    Raises:
        AssertionError: it took too long, or ended in a signal.
    """
    folder.mkdir(parents=True)
    process = FORKS.Process(target=_work, args=([list(argv) for argv in commands], str(folder)))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"{commands}: took more than {seconds:g} s")
    assert process.exitcode == 0, f"{commands}: ended with {process.exitcode}"
    return [Ended(**entry) for entry in json.loads((folder / "ended.json").read_text("utf-8"))]


def _work(commands: list[list[str]], folder: str) -> None:
    from geohsal.cli.main import cli

    most = _addresses() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    ended = []
    for number, argv in enumerate(commands):
        log = Path(folder, f"{number}.log")
        with log.open("w", encoding="utf-8") as target:
            os.dup2(target.fileno(), 1)
            os.dup2(target.fileno(), 2)
        began = time.monotonic()
        code = _code(cli, argv)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        text = log.read_text("utf-8")
        ended.append(
            {"code": code, "text": text, "seconds": time.monotonic() - began, "peak_mib": peak}
        )
    Path(folder, "ended.json").write_text(json.dumps(ended), "utf-8")


def _code(cli: Any, argv: list[str]) -> int:
    """Exit code of a command; a traceback goes where an interpreter would put it."""
    try:
        cli.main(argv, prog_name="geohsal")
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _addresses() -> int:
    """Bytes of address space of this process."""
    status = Path("/proc/self/status").read_text("utf-8")
    (line,) = [line for line in status.splitlines() if line.startswith("VmSize:")]
    return int(line.split()[1]) * 1024
