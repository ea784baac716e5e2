"""Work for engines that any process can do: sums of window corners, and accidents on demand."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geohsal.errors import RasterError
from geohsal.io.plan import Plan, SceneUnits, make_plan
from geohsal.workflows.engine import Chunk
from geohsal.workflows.pool import Tell
from geohsal.workflows.progress import Silent


def toy_plan(
    *, request: str = "model", scenes: int = 2, units: int = 7, chunk_units: int = 3
) -> Plan:
    """Windows of 4 x 5 pixels, one below the other."""
    windows = np.array([(4 * unit, 0, 4, 5) for unit in range(units)], dtype=np.int32)
    return make_plan(
        "toy",
        request=request,
        scenes=[
            SceneUnits(scene_id=f"s{number}", fingerprint=f"f{number}", windows=windows)
            for number in range(scenes)
        ],
        chunk_units=chunk_units,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWork:
    """`accident` happens at the chunk of this position of a scene, while `trap` exists."""

    accident: str = ""
    trap: Path = Path()

    def open(self) -> "ToyWorker":
        if self.accident == "shut":
            raise RasterError("no model here")
        return ToyWorker(self)


class ToyWorker:
    def __init__(self, work: ToyWork) -> None:
        self.work = work
        self.closed = False

    def run(self, chunk: Chunk) -> Mapping[str, NDArray[Any]]:
        rows = [int(window.row_off) for window in chunk.windows]
        if self.work.accident and rows[0] == 12 and self.work.trap.exists():
            if self.work.accident == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.work.accident == "counted":
                with self.work.trap.open("a") as stream:
                    stream.write("x")
            raise RasterError(f"scene {chunk.scene_id}: torn")
        return {
            "corner": np.array(rows, dtype=np.float32),
            "flat": np.zeros((0, 3), dtype=np.int16),
            "odd": np.array([[row % 8 > 0 for row in rows]], dtype=np.bool_),
        }

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyJob:
    """Doubles numbers in `nap` seconds, and notes who did; the negative ones have accidents.

    `ballast` makes the start of a process last until it reads: a pipe holds 64 KiB.
    """

    folder: Path
    nap: float = 0.0
    ballast: bytes = b""

    def __call__(self, number: int, tell: Tell) -> int:
        tell()
        if number == -1:
            raise RasterError("minus one")
        if number == -2:
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / str(number)).write_text(str(os.getpid()), "utf-8")
        time.sleep(self.nap)
        tell()
        return 2 * number


class Counting(Silent):
    """Keeps what was begun, and how many units were told of."""

    def __init__(self) -> None:
        self.said: list[tuple[str, int]] = []
        self.units = 0

    def start(self, label: str, total: int) -> None:
        self.said.append((label, total))

    def advance(self, amount: int = 1) -> None:
        self.units += amount
