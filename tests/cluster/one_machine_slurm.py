"""A throw-away Slurm on this machine: munged, slurmctld and virtual nodes, all in one folder.

    python tests/cluster/one_machine_slurm.py up FOLDER [--nodes 2] [--cpus 2] [--gpus 0]
    python tests/cluster/one_machine_slurm.py down FOLDER

`up` prints the line to eval before Slurm's commands are used. Needs no root, systemd, cgroups,
names or files in /etc; Debian: apt-get install --no-install-recommends slurm-wlm slurm-client
munge slurm-wlm-basic-plugins.
"""

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
GPU_KIND = "a100"
START_S = 30.0
STOP_S = 5.0

_CONF = """\
ClusterName=geohsal
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
# The life of a credential is also how long a requeued job waits: 120 s by default.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=5,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
MinJobAge=3600
MaxArraySize=1001
SlurmdTimeout=30
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/run/spool.%n
{gres_types}
NodeName={names} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports} CPUs={cpus} \
RealMemory={memory} {gres} State=UNKNOWN
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def missing_programs() -> list[str]:
    """Programs of Slurm that this machine lacks."""
    return [name for name in PROGRAMS if _find(name) is None]


def up(folder: Path, *, nodes: int = 2, cpus: int = 2, gpus: int = 0) -> Path:
    """Start everything and wait until the nodes are idle; gives back slurm.conf."""
    for name in ("munge", "run", "log", "state", "gpu"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o755)
    folder.chmod(0o755)
    conf = _write_conf(folder, nodes=nodes, cpus=cpus, gpus=gpus)
    _start_munge(folder)
    environ = {**os.environ, "SLURM_CONF": str(conf)}
    subprocess.run([_program("slurmctld"), "-i"], env=environ, check=True)
    for number in range(1, nodes + 1):
        start_node(folder, f"n{number}")
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        command = ["sinfo", "--noheader", "--Node", "--format=%T"]
        said = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if said.stdout.split().count("idle") == nodes:
            return conf
        time.sleep(0.2)
    log = (folder / "log" / "slurmctld.log").read_text("utf-8")[-2000:]
    down(folder)
    raise TimeoutError(f"Slurm did not come up in {START_S:.0f} s:\n{log}")


def start_node(folder: Path, name: str) -> None:
    """Start the daemon of one virtual node."""
    (folder / "run" / f"spool.{name}").mkdir(exist_ok=True)
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([_program("slurmd"), "-N", name], env=environ, check=True)


def down(folder: Path) -> None:
    """Cancel all jobs and stop what `up` started, by the process ids it left."""
    environ = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    if _pid(folder / "run" / "slurmctld.pid", "slurmctld"):
        _cancel_all(environ)
    for pid_file in sorted((folder / "run").glob("slurmd.*.pid")):
        _stop(pid_file, "slurmd")
    _stop(folder / "run" / "slurmctld.pid", "slurmctld")
    _stop(folder / "run" / "munged.pid", "munged")


def _cancel_all(environ: dict[str, str]) -> None:
    deadline = time.monotonic() + 2 * STOP_S + 5
    while time.monotonic() < deadline:
        queue = ["squeue", "--noheader", "--format=%A"]
        said = subprocess.run(queue, env=environ, capture_output=True, text=True, check=False)
        if not said.stdout.split():
            return
        subprocess.run(["scancel", "-u", getpass.getuser()], env=environ, check=False)
        time.sleep(0.2)


def _write_conf(folder: Path, *, nodes: int, cpus: int, gpus: int) -> Path:
    ports = _free_ports(nodes + 1)
    names = f"n[1-{nodes}]" if nodes > 1 else "n1"
    values = {
        "host": socket.gethostname().partition(".")[0],
        "user": getpass.getuser(),
        "folder": folder,
        "port": ports[0],
        "ports": f"{ports[1]}-{ports[-1]}" if nodes > 1 else ports[1],
        "names": names,
        "cpus": cpus,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "gres": f"Gres=gpu:{GPU_KIND}:{gpus}" if gpus else "",
        "gres_types": "GresTypes=gpu" if gpus else "",
    }
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(**values), "utf-8")
    lines = []
    for gpu in range(gpus):  # any file does for a device; a count alone does not
        device = folder / "gpu" / str(gpu)
        device.touch()
        named = f"Name=gpu Type={GPU_KIND} File={device}"
        lines += [f"NodeName=n{node} {named}" for node in range(1, nodes + 1)]
    if lines:
        (folder / "gres.conf").write_text("\n".join(lines) + "\n", "utf-8")
    return conf


def _free_ports(count: int) -> list[int]:
    """Neighbouring ports that nothing listens on, below those that the system hands out."""
    for first in range(16_800 + os.getpid() % 7_000, 32_000, count):
        ports = list(range(first, first + count))
        with ExitStack() as stack:
            try:
                for port in ports:
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return ports
    raise OSError("no free ports")


def _start_munge(folder: Path) -> None:
    key = folder / "munge" / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "munge").chmod(0o700)
    options = {
        "key-file": key,
        "socket": folder / "run" / "munge.sock",
        "pid-file": folder / "run" / "munged.pid",
        "log-file": folder / "munge" / "munged.log",
        "seed-file": folder / "munge" / "munged.seed",
        "num-threads": 2,
    }
    command = [_program("munged"), *(f"--{name}={value}" for name, value in options.items())]
    subprocess.run(command, check=True)


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _program(name: str) -> str:
    found = _find(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def _pid(pid_file: Path, name: str) -> int | None:
    """The process of a pid file, if it is there and is what the file says."""
    try:
        pid = int(pid_file.read_text("utf-8"))
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except (OSError, ValueError):
        return None
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return pid if lines["Name"] == name and not lines["State"].startswith("Z") else None


def _stop(pid_file: Path, name: str) -> None:
    pid = _pid(pid_file, name)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while _pid(pid_file, name) == pid and time.monotonic() < deadline:
        time.sleep(0.05)
    if _pid(pid_file, name) == pid:
        os.kill(pid, signal.SIGKILL)


def main() -> None:
    """`up` or `down`."""
    parser = argparse.ArgumentParser(description="A throw-away Slurm on this machine.")
    parser.add_argument("what", choices=["up", "down"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--gpus", type=int, default=0)
    asked = parser.parse_args()
    if asked.what == "down":
        down(asked.folder.absolute())
        return
    missing = missing_programs()
    if missing:
        sys.exit(f"missing: {', '.join(missing)}; install slurm-wlm, slurm-client and munge")
    folder = asked.folder.absolute()
    conf = up(folder, nodes=asked.nodes, cpus=asked.cpus, gpus=asked.gpus)
    sys.stdout.write(f"export SLURM_CONF={conf}\n")


if __name__ == "__main__":
    main()
