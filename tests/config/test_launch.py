"""Who started this process: torchrun, srun, nobody, or a batch script that forgot srun."""

import pytest

from geohsal.config.launch import Launch, find_launch
from geohsal.errors import RequestError

SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NNODES": "2",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "1",
    "WORLD_SIZE": "6",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "3",
}


def test_srun() -> None:
    found = find_launch(SRUN)
    assert found == Launch(by="srun", rank=3, world=4, local_rank=1, nodes=2)
    assert found.local_world == 2
    assert not found.speaks
    assert find_launch(SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}).speaks


def test_torchrun_also_inside_a_slurm_job() -> None:
    expected = Launch(by="torchrun", rank=1, world=6, local_rank=1, nodes=2)
    assert find_launch(TORCHRUN) == expected
    assert find_launch(SRUN | TORCHRUN) == expected


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"},
        {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4"},  # a shell of salloc
    ],
)
def test_alone(environ: dict[str, str]) -> None:
    assert find_launch(environ) == Launch()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_ID"}, "without srun; write: srun"),
        ({k: v for k, v in SRUN.items() if k != "SLURM_NTASKS_PER_NODE"}, "--ntasks-per-node"),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "3"}, "--ntasks-per-node"),
        (TORCHRUN | {"WORLD_SIZE": "5"}, "every node the same --nproc_per_node"),
    ],
)
def test_what_would_hang_is_refused_in_one_line(environ: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        find_launch(environ)
    assert "\n" not in str(caught.value)
