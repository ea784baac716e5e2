"""The group: light to import, lazy commands, one line and one exit code per failure."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from geohsal.cli.main import COMMANDS, cli
from geohsal.errors import BudgetError, PartialError, RasterError

HEAVY = {"numpy", "torch", "rasterio", "pandas", "geopandas", "pydantic", "yaml", "rich", "scipy"}


def invoke(*argv: str) -> Result:
    return CliRunner().invoke(cli, list(argv), prog_name="geohsal")


def run_python(code: str) -> list[str]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(done.stdout.splitlines()[-1])
    return loaded


LOADED = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    loaded = run_python("import geohsal.cli.main\n" + LOADED)
    assert not HEAVY & set(loaded)


def test_help_loads_nothing_heavy_and_no_command() -> None:
    code = (
        "from click.testing import CliRunner\n"
        "from geohsal.cli.main import cli\n"
        "result = CliRunner().invoke(cli, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        "import sys; assert 'geohsal.cli.train' not in sys.modules\n"
    )
    assert not HEAVY & set(run_python(code + LOADED))


def test_importing_the_package_loads_nothing_heavy_and_names_the_public_functions() -> None:
    code = "import geohsal; assert 'tile' in dir(geohsal)\n"
    assert not HEAVY & set(run_python(code + LOADED))


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    import geohsal

    with pytest.raises(AttributeError, match="module 'geohsal' has no attribute 'tille'"):
        geohsal.tille  # noqa: B018


def test_the_room_query_can_be_called_as_the_public_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import geohsal
    import geohsal.query.acquisition  # the room is loaded and hides the function of its name

    fake = types.ModuleType("geohsal.workflows.query")
    fake.query = lambda run_dir, **kwargs: (run_dir, kwargs)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "geohsal.workflows.query", fake)
    assert geohsal.query("RUN", budget="2%") == ("RUN", {"budget": "2%"})  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_starts_like_its_line_in_the_list(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: geohsal {name}")


def test_no_command_shows_the_help() -> None:
    result = invoke()
    assert result.exit_code == 0
    for name, line in COMMANDS.items():
        assert f"  {name} " in result.output
        assert line.split()[0] in result.output


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["tille"], 2, "no command 'tille'; did you mean 'tile'?"),
        (["frobnicate"], 2, "no command 'frobnicate'; known: tile, train"),
        (["tile", "m.yaml"], 2, "Missing option '-o' / '--out'; see: geohsal tile --help"),
        (["train", "RUN", "--foo"], 2, "No such option"),
        (["query", "RUN", "--workers", "0"], 2, "Invalid value for '--workers'"),
        (["config"], 2, "Missing command; see: geohsal config --help"),
        (["config", "show", "--set", "train.stepps=3"], 2, "did you mean 'steps'?"),
        (["config", "show", "--set", "train.steps"], 2, "write it as section.key=value"),
        (["config", "show", "--set", "train.steps=0"], 2, "train.steps"),
        (["config", "show", "--set", "query.budget=lots"], 2, "query.budget: must be a number"),
        (["config", "show", "-c", "nowhere.yaml"], 2, "config nowhere.yaml: cannot be read"),
        (["train", "nowhere"], 2, "nowhere: not a run (no such folder); make one with: geohsal"),
        (["status", "nowhere"], 2, "nowhere: not a run (no such folder); make one with: geohsal"),
        (["ingest", "RUN"], 2, "give the reviewed files, or --undo and no file"),
        (["ingest", "RUN", "a.gpkg", "--undo"], 2, "give the reviewed files, or --undo"),
        (["predict", "-o", "maps"], 2, "give a RUN, or --model DIR and rasters"),
    ],
)
def test_a_wrong_request_is_one_line_and_its_code(
    argv: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*argv)
    assert result.exit_code == code
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("geohsal: error: ")
    assert message in result.stderr


Fake = Callable[[str, Callable[..., Any]], None]


@pytest.fixture
def fake_workflow(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """`fake_workflow(name, function)` stands in for geohsal.workflows.<name>.<name>."""

    def fake(name: str, function: Callable[..., Any]) -> None:
        module = types.ModuleType(f"geohsal.workflows.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return fake


def raising(error: BaseException) -> Callable[..., None]:
    def workflow(*args: object, **kwargs: object) -> None:
        raise error

    return workflow


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (BudgetError("budget 1px: buys nothing"), 2, ["geohsal: error: budget 1px: buys nothing"]),
        (RasterError("a.tif:\n  is torn"), 3, ["geohsal: error: a.tif: is torn"]),
        (
            PartialError("1 of 2 scenes failed", failures={"north": "is torn"}),
            4,
            ["geohsal: error: 1 of 2 scenes failed", "geohsal: error: north: is torn"],
        ),
        (KeyboardInterrupt(), 130, ["geohsal: interrupted; the same command goes on from here"]),
    ],
)
def test_a_failing_workflow_gives_its_exit_code(
    error: BaseException, code: int, lines: list[str], fake_workflow: Fake
) -> None:
    fake_workflow("query", raising(error))
    result = invoke("query", "RUN", "--budget", "3regions", "-q")
    assert result.exit_code == code
    assert [line for line in result.stderr.splitlines() if line] == lines


def test_a_bug_keeps_its_traceback(fake_workflow: Fake) -> None:
    fake_workflow("query", raising(ZeroDivisionError("a bug")))
    result = invoke("query", "RUN")
    assert isinstance(result.exception, ZeroDivisionError)


def test_with_json_a_failure_is_one_object_on_stdout(fake_workflow: Fake) -> None:
    failures = {"north": "is torn"}
    fake_workflow("query", raising(PartialError("1 of 2 scenes failed", failures=failures)))
    result = invoke("query", "RUN", "--json")
    assert result.exit_code == 4
    assert json.loads(result.stdout) == {
        "error": "1 of 2 scenes failed",
        "exit_code": 4,
        "failures": failures,
    }


@pytest.mark.parametrize(
    ("argv", "before", "said"),
    [("--nonsense", None, "2"), ("--nonsense", "3", "3"), ("--version", None, None)],
)
def test_a_job_learns_the_first_code_that_no_other_start_would_change(
    argv: str, before: str | None, said: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "train-7-0.code"
    if before is not None:
        path.write_text(before, "utf-8")
    command = [sys.executable, "-m", "geohsal", argv]
    environ = os.environ | {"GEOHSAL_FINAL_CODE_FILE": str(path)}
    done = subprocess.run(command, env=environ, capture_output=True, check=False)
    assert done.returncode == (0 if said is None else 2)
    assert (path.read_text("utf-8") if path.exists() else None) == said
