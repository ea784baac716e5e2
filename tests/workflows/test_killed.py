"""Killed at any moment, or out of disk, the same command completes, and nothing tells of it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import killing
import numpy as np
import pytest
from killing import STAGES, Outcome, Stage
from tiny_run import TINY_SETTINGS

from geohsal.workflows.landscape import write_landscape

pytestmark = pytest.mark.kill

KILLS = int(os.environ.get("GEOHSAL_KILLS", "4"))
"""Moments per stage: an even number, half of them times, half changes of the file system."""

KILLED = tuple(stage for stage in STAGES if stage.name != "answer")
"""`answer` only fills a file for the next stage."""


class Undisturbed:
    """The whole chain once, with its folder as it was before each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.outcomes: dict[str, Outcome] = {}
        self.home.mkdir()
        self.scenes = write_landscape(folder / "landscape", shape=(192, 224)).parent
        (self.scenes / "settings.yaml").write_text(TINY_SETTINGS, "utf-8")
        for stage in STAGES:
            shutil.copytree(self.home, self.before(stage))
            log = folder / f"{stage.name}.log"
            outcome = killing.run(stage.argv(self.home, self.scenes), log, home=self.home)
            assert outcome.code == 0, log.read_text()
            self.outcomes[stage.name] = outcome

    def before(self, stage: Stage) -> Path:
        return self.folder / f"before_{stage.name}"

    def after(self, stage: Stage) -> Path:
        """The folder as it was once the stage was done."""
        place = STAGES.index(stage) + 1
        return self.home if place == len(STAGES) else self.before(STAGES[place])


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    killing.set_one_thread()
    folder = tmp_path_factory.mktemp("chain")
    yield Undisturbed(folder)
    shutil.rmtree(folder)


def moment(usual: Outcome, stage: Stage, number: int) -> dict[str, float]:
    """One moment in each part of the undisturbed run, by turns of its changes and of its time.

    The last change is always among them. Where other processes write, all moments are times.
    """
    part, by_time = divmod(number, 2)
    rng = np.random.default_rng([KILLED.index(stage), number])
    share = (part + rng.random()) / (KILLS // 2)
    if by_time or stage.processes:
        return {"kill_after": share * usual.seconds}
    last = part == KILLS // 2 - 1
    return {"kill_before": usual.changes - 1 if last else int(share * usual.changes)}


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("stage", KILLED, ids=[stage.name for stage in KILLED])
def test_the_same_command_completes_what_was_killed(
    chain: Undisturbed, tmp_path: Path, stage: Stage, number: int
) -> None:
    when = moment(chain.outcomes[stage.name], stage, number)
    home = shutil.copytree(chain.before(stage), tmp_path / "home")
    log = tmp_path / "log"
    argv = stage.argv(home, chain.scenes)
    killed = killing.run(argv, log, home=home, **when)  # type: ignore[arg-type]
    assert killed.code == -9 or "kill_after" in when, "the changes are not the same ones"
    outcome = killing.run(argv, log, home=home)
    assert outcome.code == 0, f"{when}: {log.read_text()}"
    assert killing.leftovers(home) == []
    expected, found = killing.snapshot(chain.after(stage)), killing.snapshot(home)
    different = {name for name in expected.keys() | found if expected.get(name) != found.get(name)}
    assert not different, str(when)


@pytest.mark.parametrize("share", [0.4, 0.9])
@pytest.mark.parametrize("stage", STAGES, ids=[stage.name for stage in STAGES])
def test_a_full_disk_is_one_line_and_the_same_command_completes(
    chain: Undisturbed, tmp_path: Path, stage: Stage, share: float
) -> None:
    home = shutil.copytree(chain.before(stage), tmp_path / "home")
    log, argv = tmp_path / "log", stage.argv(home, chain.scenes)
    limit = int(share * largest_new_file(chain, stage))
    filled = killing.run(argv, log, home=home, limit=limit)
    said = log.read_text()
    assert filled.code == 3, said
    assert said.count("geohsal: error: ") == 1
    assert ": cannot be written (" in said
    assert "Traceback" not in said
    assert killing.run(argv, log, home=home).code == 0, log.read_text()
    assert killing.leftovers(home) == []
    expected, found = killing.snapshot(chain.after(stage)), killing.snapshot(home)
    assert {name for name in expected.keys() | found if expected.get(name) != found.get(name)} == (
        set()
    )


def largest_new_file(chain: Undisturbed, stage: Stage) -> int:
    """Bytes of the largest file that a stage leaves."""
    before, after = killing.snapshot(chain.before(stage)), killing.snapshot(chain.after(stage))
    new = [name for name, digest in after.items() if digest and before.get(name) != digest]
    return max((chain.after(stage) / name).stat().st_size for name in new)
