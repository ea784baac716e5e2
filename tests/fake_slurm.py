"""Stand-ins for Slurm's commands: they note their words and answer what a test says."""

from dataclasses import dataclass
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "squeue", "scancel")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSlurm:
    """A folder that is all of PATH."""

    folder: Path

    def says(self, command: str, text: str) -> None:
        """Let a command run this shell text after noting its words."""
        path = self.folder / command
        path.write_text(
            f'#!/bin/sh\ncd "{self.folder}"\necho "{command} $*" >>calls\n{text}\n', "utf-8"
        )
        path.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        """What a command was called with."""
        path = self.folder / "calls"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] == command]


def fake_slurm(folder: Path, patch: pytest.MonkeyPatch) -> FakeSlurm:
    """Sbatch gives the ids 101, 102, ...; the queue is empty."""
    folder.mkdir(parents=True)
    fake = FakeSlurm(folder=folder)
    count = "n=$(grep -c ^sbatch calls)"
    fake.says("sbatch", f"PATH=/usr/bin:/bin; {count}; echo $((100 + n))")
    fake.says("squeue", "exit 0")
    fake.says("scancel", "exit 0")
    patch.setenv("PATH", str(folder))
    return fake
