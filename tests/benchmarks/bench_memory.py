"""Peak memory and time of commands against the size of the scene, each a process of its own.

    python tests/benchmarks/bench_memory.py [--sizes 2000 5000 10000 20000]
        [--stages tile query predict export] [--folder DIR] [--out FILE.csv]
    python tests/benchmarks/bench_memory.py --command "geohsal tile {manifest} -o {run}"

For every size a four-band 16-bit COG is written (see big_scene.py), tiled and trained for a few
steps with a small network; then each stage is measured on a copy of that run. `--command` measures
any other one: {manifest} and {folder} are the scene's, {run} is a run that is tiled and trained.
`peak_mib` is the largest resident memory of any one process, with its imports; `to_smallest`
compares it with the smallest scene of the same call. One row per size and stage is appended.
"""

import argparse
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
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
STAGES = {
    "tile": "geohsal tile {manifest} -o {fresh} -c {folder}/settings.yaml",
    "query": "geohsal query {run}",
    "predict": "geohsal predict {run} -o {folder}/maps",
    "export": "geohsal export {queried} -o {folder}/map.parquet",
}
"""What is measured; {fresh} is a folder that is not there yet, {queried} a run with maps."""


def run(command: str) -> None:
    """A step that is not measured."""
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: failed: {done.stderr}")


def prepare(folder: Path, size: int, commands: Sequence[str]) -> Path:
    """A scene, and as much of a run as the commands need; the manifest."""
    manifest = write_scene(folder, size)
    (folder / "settings.yaml").write_text(SETTINGS, "utf-8")
    text = " ".join(commands)
    if "{run}" in text or "{queried}" in text:
        run(f"geohsal tile {manifest} -o {folder}/trained -c {folder}/settings.yaml")
        run(f"geohsal train {folder}/trained")
    if "{queried}" in text:
        shutil.copytree(folder / "trained", folder / "queried")
        run(f"geohsal query {folder}/queried")
    return manifest


def once(command: str, folder: Path, manifest: Path) -> Measured:
    """One measurement on a fresh copy of what the command changes."""
    for name in ("fresh", "run", "maps"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "map.parquet").unlink(missing_ok=True)
    if "{run}" in command:
        shutil.copytree(folder / "trained", folder / "run")
    places = {name: folder / name for name in ("fresh", "run", "queried")}
    words = shlex.split(command.format(manifest=manifest, folder=folder, **places))
    return measured(words)


def bench(
    folder: Path, sizes: Sequence[int], stages: dict[str, str], *, repeats: int
) -> Iterator[dict[str, object]]:
    """One row per size and stage."""
    smallest: dict[str, float] = {}
    for size in sizes:
        place = folder / f"s{size}"
        manifest = prepare(place, size, list(stages.values()))
        for stage, command in stages.items():
            found = [once(command, place, manifest) for _ in range(repeats)]
            median, least, greatest = spread([one.seconds for one in found])
            peak = max(one.peak_mib for one in found)
            smallest.setdefault(stage, peak)
            yield {
                "shape": f"{size}x{size}x{len(BANDS)} uint16", "stage": stage, "command": command,
                "repeats": repeats, "median_s": round(median, 2),
                "spread_s": round(greatest - least, 2),
                "cpu_s": round(spread([one.cpu for one in found])[0], 2), "peak_mib": round(peak),
                "to_smallest": round(peak / smallest[stage], 3),
            }  # fmt: skip
        shutil.rmtree(place)


def main() -> None:
    """Measure, print and append."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 10_000, 20_000])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["tile"])
    parser.add_argument("--command", help="measured instead of the stages")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where scenes and runs are written")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.csv")
    options = parser.parse_args()
    stages = {stage: STAGES[stage] for stage in options.stages}
    if options.command:
        stages = {options.command.split()[1]: options.command}
    where = {
        "commit": commit(),
        "machine": f"{cpu_machine()}, Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for row in bench(Path(folder), sorted(options.sizes), stages, repeats=options.repeats):
            print(row, flush=True)
            append_rows(options.out, COLUMNS, [where | row])


if __name__ == "__main__":
    main()
