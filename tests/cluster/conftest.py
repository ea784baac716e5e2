"""A Slurm of this machine's own, and a stand-in for `geohsal` that does as a test says."""

import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.jobs import Slurm, Stub
from cluster.one_machine_slurm import down, missing_programs, up

CPUS = 8


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A Slurm with two virtual nodes and make-believe GPUs; gone after the tests."""
    missing = missing_programs()
    if missing:
        pytest.skip(
            f"no Slurm here ({', '.join(missing)} missing): apt-get install "
            "--no-install-recommends slurm-wlm slurm-client munge slurm-wlm-basic-plugins"
        )
    folder = Path(tempfile.mkdtemp(prefix="geohsal-slurm-"))  # short, as sockets want it
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(up(folder, nodes=2, cpus=CPUS, gpus=4)))
            yield Slurm(folder=folder)
    finally:
        down(folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def make_stub() -> Callable[[Path, str], Stub]:
    """`make_stub(folder, behaviour)`; a job finds it if `folder` is first in its PATH."""

    def make(folder: Path, behaviour: str) -> Stub:
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "geohsal"
        program.write_text(
            "#!/bin/bash\n"
            f"cd {shlex.quote(str(folder))}\n"
            'restarts="${SLURM_RESTART_COUNT:-0}"\n'
            'echo "$* restarts=$restarts threads=$OMP_NUM_THREADS" >>calls\n'
            f"{behaviour}\n",
            "utf-8",
        )
        program.chmod(0o755)
        return Stub(folder=folder)

    return make
