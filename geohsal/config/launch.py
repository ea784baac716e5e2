"""How this process was started: alone, by srun, or by torchrun; read from the environment."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from geohsal.errors import RequestError

STOP_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""What batch systems send some time before they end a job, and when they do: stop, keep all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The place of this process among those that do the same work together.

    `by` says who started them; `rank` counts from 0 over all `nodes`, `local_rank` on this one.
    """

    by: Literal["nobody", "srun", "torchrun"] = "nobody"
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    nodes: int = 1

    @property
    def local_world(self) -> int:
        """Processes on each node."""
        return self.world // self.nodes

    @property
    def speaks(self) -> bool:
        """Whether this process talks to people and writes results."""
        return self.rank == 0


def find_launch(environ: Mapping[str, str]) -> Launch:
    """What the variables of torchrun or srun say; torchrun first, which may run under srun.

    Raises:
        RequestError: a batch job has several tasks, but this process was not started by srun; or
            srun's tasks are not spread evenly over the nodes.
    """
    if "TORCHELASTIC_RUN_ID" in environ:
        world, here = int(environ["WORLD_SIZE"]), int(environ["LOCAL_WORLD_SIZE"])
        if world % here:
            raise RequestError(
                f"torchrun: {world} processes with {here} on this node; give every node the same "
                "--nproc_per_node"
            )
        return Launch(
            by="torchrun",
            rank=int(environ["RANK"]),
            world=world,
            local_rank=int(environ["LOCAL_RANK"]),
            nodes=world // here,
        )
    tasks = int(environ.get("SLURM_NTASKS", "1"))
    if "SLURM_PROCID" in environ and tasks > 1:
        return _srun(environ, tasks)
    return Launch()


def _srun(environ: Mapping[str, str], tasks: int) -> Launch:
    if "SLURM_STEP_ID" not in environ:  # the batch script itself: the other tasks never start
        raise RequestError(
            f"this batch job asks for {tasks} tasks, but geohsal was started without srun; write: "
            "srun geohsal train RUN (or ask for one task)"
        )
    nodes = int(environ.get("SLURM_NNODES", "1"))
    each = int(environ.get("SLURM_NTASKS_PER_NODE", "0"))
    if each * nodes != tasks:
        raise RequestError(
            f"srun: {tasks} tasks on {nodes} nodes without --ntasks-per-node that says so; give "
            "--nodes and --ntasks-per-node"
        )
    return Launch(
        by="srun",
        rank=int(environ["SLURM_PROCID"]),
        world=tasks,
        local_rank=int(environ["SLURM_LOCALID"]),
        nodes=nodes,
    )
