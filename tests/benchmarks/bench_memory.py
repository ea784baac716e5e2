"""Peak memory and time of commands against the size of the scene, each a process of its own.

    python tests/benchmarks/bench_memory.py [--sizes 512 2000 5000] [--networks stand-in]
        [--scenes N] [--workers N] [--repeats N] [--folder DIR] [--out FILE.csv]

For every size a four-band 16-bit COG, or N equal ones, is written (see big_scene.py) and goes
through the chain tile, train (a few steps of a small network), query, predict, export.
`--networks stand-in` puts networks that cost next to nothing in the place of the real ones (see
stand_in.py; maps mean nothing), to measure everything else. `peak_mib` is the largest resident
memory of any one process, with its imports; `to_smallest` compares it with the smallest scene of
the same call. One row per size and stage is appended.
"""

import argparse
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from big_scene import BANDS, write_scene
from measure import RESULTS, Measured, append_rows, commit, cpu_machine, measured, spread

COLUMNS = (
    "commit", "machine", "shape", "stage", "command", "repeats", "median_s", "spread_s", "cpu_s",
    "peak_mib", "to_smallest",
)  # fmt: skip
SETTINGS = """
seed: 0
model: {arch: unet, encoder: tu-resnet10t, encoder_depth: 3, decoder_channels: 8,
        pixel_channels: 8, window_px: 256, window_overlap_px: 32}
train: {steps: 4, crop_px: 64, batch_labelled: 2, batch_unlabelled: 2, checkpoints: 2,
        loader_workers: 0}
ssl: {friend: head}
emd: {channels: 8}
"""
CHAIN = {
    "tile": "tile {manifest} -o {run} -c {settings} --workers {workers}",
    "train": "train {run}",
    "query": "query {run} --workers {workers}",
    "predict": "predict {run} -o {maps} --workers {workers}",
    "export": "export {run} -o {out} --workers {workers}",
}
"""What is measured, in order: each command needs the ones before it."""
NETWORKS = ("train", "query", "predict")
"""Stages with networks: only they are given others, since that loads torch."""

STAND_IN = (
    f"{shlex.quote(sys.executable)} {shlex.quote(str(Path(__file__).with_name('stand_in.py')))}"
)


def run(command: str) -> None:
    """A step that is not measured."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: failed: {done.stderr}")


def chain(
    folder: Path, manifest: Path, *, programs: Mapping[str, str], workers: int
) -> dict[str, Measured]:
    """The whole chain once, in a folder that is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "settings.yaml").write_text(SETTINGS, "utf-8")
    names = {"run": "run", "settings": "settings.yaml", "maps": "maps", "out": "map.parquet"}
    places = {name: shlex.quote(str(folder / file)) for name, file in names.items()}
    places |= {"manifest": shlex.quote(str(manifest)), "workers": str(workers)}
    found = {}
    for stage, command in CHAIN.items():
        found[stage] = measured(shlex.split(f"{programs[stage]} {command.format(**places)}"))
        print(f"  {stage}: {found[stage]}", flush=True)
    return found


def bench(options: argparse.Namespace, folder: Path) -> Iterator[dict[str, object]]:
    """One row per size and stage."""
    stand_in = NETWORKS if options.networks == "stand-in" else ()
    programs = {stage: STAND_IN if stage in stand_in else "geohsal" for stage in CHAIN}
    smallest: dict[str, float] = {}
    count = f"{options.scenes} of " if options.scenes > 1 else ""
    for size in sorted(options.sizes):
        place = folder / f"s{size}"
        manifest = write_scene(place, size, scenes=options.scenes)
        found = [
            chain(place / "chain", manifest, programs=programs, workers=options.workers)
            for _ in range(options.repeats)
        ]
        for stage, command in CHAIN.items():
            own = [one[stage] for one in found]
            median, least, greatest = spread([one.seconds for one in own])
            peak = max(one.peak_mib for one in own)
            smallest.setdefault(stage, peak)
            yield {
                "shape": f"{count}{size}x{size}x{len(BANDS)} uint16", "stage": stage,
                "command": ("stand_in.py " if stage in stand_in else "geohsal ")
                + command.replace("{workers}", str(options.workers)),
                "repeats": options.repeats, "median_s": round(median, 2),
                "spread_s": round(greatest - least, 2),
                "cpu_s": round(spread([one.cpu for one in own])[0], 2), "peak_mib": round(peak),
                "to_smallest": round(peak / smallest[stage], 3),
            }  # fmt: skip
        shutil.rmtree(place)


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2000, 5000])
    parser.add_argument("--networks", choices=("real", "stand-in"), default="real")
    parser.add_argument("--scenes", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where scenes and runs are written")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.csv")
    options = parser.parse_args()
    where = {
        "commit": commit(),
        "machine": f"{cpu_machine()}, Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for row in bench(options, Path(folder)):
            print(row, flush=True)
            append_rows(options.out, COLUMNS, [where | row])


if __name__ == "__main__":
    main()
