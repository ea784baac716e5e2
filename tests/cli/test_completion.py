"""Tab completes commands and options, in three shells, without loading anything heavy."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from geohsal.cli.main import cli

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "shell.md"


def completions(line: str, shell: str = "bash") -> list[str]:
    """What a shell is offered for the last word of a line."""
    words = line.split(" ")
    environ = {
        "_GEOHSAL_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
    }
    result = CliRunner().invoke(cli, [], prog_name="geohsal", env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_how_to_names_what_makes_the_script_of_each_shell(shell: str) -> None:
    variable = f"_GEOHSAL_COMPLETE={shell}_source"
    assert f"{variable} geohsal" in HOW_TO.read_text("utf-8")
    name, value = variable.split("=")
    command = [sys.executable, "-c", "from geohsal.cli.main import main; main()"]
    made = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, name: value}
    )
    assert made.stderr == ""
    assert re.search(rf"_GEOHSAL_COMPLETE={shell}_complete", made.stdout)


def test_commands_options_and_choices_are_completed() -> None:
    assert completions("geohsal tr") == ["plain,train"]
    assert completions("geohsal train --dry") == ["plain,--dry-run"]
    assert completions("geohsal export RUN --what ") == ["plain,refined", "plain,final"]
    assert completions("geohsal train my") == ["dir,my"] or completions("geohsal train my") == [
        "file,my"
    ]
    assert completions("geohsal tr", "zsh")[:2] == ["plain", "train"]
    assert completions("geohsal tr", "fish")[0].startswith("plain,train")


def test_completing_loads_nothing_heavy() -> None:
    code = (
        "import os, sys\n"
        "os.environ.update(_GEOHSAL_COMPLETE='bash_complete', COMP_WORDS='geohsal train --d', "
        "COMP_CWORD='2')\n"
        "from geohsal.cli.main import cli\n"
        "try:\n    cli.main([], prog_name='geohsal')\n"
        "except SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'rasterio', 'lightning'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["plain,--device", "plain,--dry-run", "set()"]
