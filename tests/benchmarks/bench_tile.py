"""Reading tiles and predicting, beside torchgeo's own loop on the same file in the same run.

    python tests/benchmarks/bench_tile.py [--size 8192] [--tile 512] [--overlap 64]
        [--tiles 240] [--repeats 3] [--tasks read scan predict] [--out FILE.csv]

`read`: windows of a COG (see big_scene.py) from left to right, as float32: geohsal as its
inference reads them (one read per chunk, windows are slices of it), one open rasterio handle, and
torchgeo's RasterDataset + GridGeoSampler + DataLoader without and with workers. `scan`: the command
`geohsal tile` on two scenes with one and two workers. `predict`: the same network over the same
windows: geohsal's pass (blended), the whole command `geohsal predict` (five maps as COGs), and the
network in a plain torchgeo loop that keeps the best class. Every measurement is a process of its
own; `read` and the loops of `predict` time themselves after their imports, commands are timed
whole. `to_torchgeo` is the wall time against torchgeo without workers, in the same run.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_memory import SETTINGS, run
from big_scene import BANDS, write_scene
from measure import RESULTS, append_rows, commit, cpu_machine, measured, spread
from rasterio.windows import Window

COLUMNS = (
    "commit", "machine", "shape", "task", "method", "workers", "tile", "overlap", "tiles",
    "repeats", "median_s", "spread_s", "cpu_s", "mpx_per_s", "to_torchgeo",
)  # fmt: skip
BATCH = 8


def corners(size: int, tile: int, overlap: int, tiles: int) -> list[tuple[int, int]]:
    """Upper left pixels (row, col) of the first so many windows, row by row."""
    stride = tile - overlap
    steps = range(0, size - tile + 1, stride)
    return [(row, col) for row in steps for col in steps][:tiles]


def read_geohsal(job: dict[str, Any]) -> int:
    """Windows as slices of the regions that a chunk of inference reads."""
    from geohsal.io.manifest import SceneSource
    from geohsal.io.raster import open_scene

    tile, found = job["tile"], 0
    source = SceneSource(scene_id="scene", image=job["image"])
    with open_scene(source, BANDS, max_pixels=job["size"] ** 2) as reader:
        for places in _chunks(corners(job["size"], tile, job["overlap"], job["tiles"])):
            top, left = (min(place[axis] for place in places) for axis in (0, 1))
            low, last = (max(place[axis] for place in places) + tile for axis in (0, 1))
            pixels, _ = reader.read_with_valid(Window(left, top, last - left, low - top))
            for row, col in places:
                cut = pixels[:, row - top :, col - left :][:, :tile, :tile]
                found += int(np.ascontiguousarray(cut).shape[1:] == (tile, tile))
    return found


def _chunks(places: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Windows in groups of 4 x 4, as a chunk of inference has them."""
    rows, cols = (sorted({place[axis] for place in places}) for axis in (0, 1))
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, col in places:
        groups.setdefault((rows.index(row) // 4, cols.index(col) // 4), []).append((row, col))
    yield from groups.values()


def read_rasterio(job: dict[str, Any]) -> int:
    """One read per window from one open dataset."""
    import rasterio

    tile, found = job["tile"], 0
    with rasterio.open(job["image"]) as dataset:
        for row, col in corners(job["size"], tile, job["overlap"], job["tiles"]):
            pixels = dataset.read(window=Window(col, row, tile, tile)).astype(np.float32)
            found += int(pixels.shape[1] == tile)
    return found


def _loader(job: dict[str, Any]) -> Any:
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = Path(job["image"]).name
        is_image = True
        separate_files = False

    dataset = Scene(str(Path(job["image"]).parent))
    sampler = GridGeoSampler(dataset, size=job["tile"], stride=job["tile"] - job["overlap"])
    return DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=sampler,
        num_workers=job["workers"],
        collate_fn=stack_samples,
    )


def read_torchgeo(job: dict[str, Any]) -> int:
    """Torchgeo's dataset, sampler and loader."""
    found = 0
    for batch in _loader(job):
        found += len(batch["image"])
        if found >= job["tiles"]:
            break
    return found


def predict_geohsal(job: dict[str, Any]) -> int:
    """Geohsal's frozen pass over the same pixels, blended, without maps on disk."""
    from geohsal.training.inference import chunks

    predictor, opener, scene_id = _model(job)
    scene, stride = opener(scene_id), job["tile"] - job["overlap"]
    size = job["size"]
    for window in chunks(size, size, size=4 * stride):
        predictor.predict(scene, window)
    scene.close()
    return len(corners(size, job["tile"], job["overlap"], 10**9))


def predict_torchgeo(job: dict[str, Any]) -> int:
    """The same teacher in a plain loop over torchgeo's loader, best class kept."""
    import torch

    predictor, _, _ = _model(job)
    mean = torch.tensor(predictor.scale.mean)[:, None, None]
    std = torch.tensor(predictor.scale.std)[:, None, None]
    found = 0
    with torch.inference_mode():
        for batch in _loader(job):
            images = ((batch["image"].float() - mean) / std).clamp(-6, 6)
            classes = predictor.networks(images).logits.argmax(dim=1).to(torch.uint8)
            found += len(classes)
    return found


def _model(job: dict[str, Any]) -> tuple[Any, Any, str]:
    import torch

    from geohsal.training.model_io import load_model
    from geohsal.workflows.context import open_context

    torch.set_num_threads(1)
    context = open_context(Path(job["run"]))
    trained = context.run.last_trained()
    assert trained is not None, "the run was trained"
    predictor = load_model(trained.model_dir).predictor(torch.device("cpu"))
    return predictor, context.opener, next(iter(context.record.scenes))


WORKERS: dict[str, Callable[[dict[str, Any]], int]] = {
    "read geohsal": read_geohsal,
    "read rasterio": read_rasterio,
    "read torchgeo": read_torchgeo,
    "predict geohsal": predict_geohsal,
    "predict torchgeo": predict_torchgeo,
}


def timed(method: str, job: dict[str, Any]) -> dict[str, float]:
    """Wall and CPU seconds of a method in a process of its own, after its imports."""
    command = [sys.executable, __file__, "--worker", method, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{method}: failed: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def work(method: str, job: dict[str, Any]) -> None:
    """Be one of the measured processes: once on a few windows to import, then for the clock."""
    WORKERS[method](job | {"tiles": 2} if method.startswith("read") else job)
    began, before = time.monotonic(), os.times()
    tiles = WORKERS[method](job)
    took, after = time.monotonic() - began, os.times()
    own = after.user + after.system + after.children_user + after.children_system
    own -= before.user + before.system + before.children_user + before.children_system
    print(json.dumps({"seconds": took, "cpu": own, "tiles": tiles}))


def methods(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, str, int, Any]]:
    """(task, method, workers, what measures it once)."""
    job = {
        "image": str(folder / "scene" / "scene0.tif"), "size": options.size, "tile": options.tile,
        "overlap": options.overlap, "tiles": options.tiles, "workers": 0,
        "run": str(folder / "trained"),
    }  # fmt: skip
    job["tiles"] = len(corners(options.size, options.tile, options.overlap, options.tiles))

    def loop(method: str, workers: int) -> Callable[[], dict[str, float]]:
        return lambda: timed(method, job | {"workers": workers})

    def command(text: str) -> Callable[[], dict[str, float]]:
        def once() -> dict[str, float]:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                found = measured(text.format(folder=folder, out=out).split())
            return {"seconds": found.seconds, "cpu": found.cpu, "tiles": 0}

        return once

    if "read" in options.tasks:
        for workers in (0, 2):
            yield "read", "torchgeo", workers, loop("read torchgeo", workers)
        yield "read", "rasterio, one handle", 0, loop("read rasterio", 0)
        yield "read", "geohsal", 0, loop("read geohsal", 0)
    if "scan" in options.tasks:
        for workers in (1, 2):
            text = "geohsal tile {folder}/scene/manifest.yaml -o {out}/run --workers " + str(
                workers
            )
            yield "scan", "geohsal tile", workers, command(text)
    if "predict" in options.tasks:
        for workers in (0, 2):
            yield "predict", "torchgeo loop", workers, loop("predict torchgeo", workers)
        yield "predict", "geohsal pass", 0, loop("predict geohsal", 0)
        text = "geohsal predict {folder}/trained -o {out}/maps"
        yield "predict", "geohsal predict", 0, command(text)


def bench(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """One row per method, methods interleaved."""
    scenes = 2 if "scan" in options.tasks else 1
    manifest = write_scene(folder / "scene", options.size, scenes=scenes)
    if "predict" in options.tasks:
        text = SETTINGS.replace("window_px: 256", f"window_px: {options.tile}")
        text = text.replace("window_overlap_px: 32", f"window_overlap_px: {options.overlap}")
        (folder / "settings.yaml").write_text(text, "utf-8")
        run(f"geohsal tile {manifest} -o {folder}/trained -c {folder}/settings.yaml")
        run(f"geohsal train {folder}/trained")
    plan = list(methods(options, folder))
    found: list[list[dict[str, float]]] = [[] for _ in plan]
    for _ in range(options.repeats):
        for runs, (_, _, _, once) in zip(found, plan, strict=True):
            runs.append(once())
    yield from rows(options, plan, found, scenes=scenes)


def rows(
    options: argparse.Namespace,
    plan: Sequence[tuple[str, str, int, Any]],
    found: Sequence[Sequence[dict[str, float]]],
    *,
    scenes: int,
) -> Iterator[dict[str, object]]:
    """What is published of the measurements."""
    peers: dict[str, float] = {}
    for (task, method, workers, _), runs in zip(plan, found, strict=True):
        median, least, greatest = spread([one["seconds"] for one in runs])
        if method.startswith("torchgeo"):
            peers.setdefault(task, median)
        tiles = int(runs[0]["tiles"])
        pixels = options.size**2 * (scenes if task == "scan" else 1)
        pixels = tiles * options.tile**2 if task == "read" else pixels
        yield {
            "shape": f"{options.size}x{options.size}x{len(BANDS)} uint16", "task": task,
            "method": method, "workers": workers, "tile": options.tile,
            "overlap": options.overlap, "tiles": tiles or "", "repeats": options.repeats,
            "median_s": round(median, 2), "spread_s": round(greatest - least, 2),
            "cpu_s": round(spread([one["cpu"] for one in runs])[0], 2),
            "mpx_per_s": round(pixels / median / 1e6, 1),
            "to_torchgeo": round(median / peers[task], 3) if task in peers else "",
        }  # fmt: skip


def main() -> None:
    """Measure, print and append; or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--tiles", type=int, default=240)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", choices=["read", "scan", "predict"],
                        default=["read", "scan", "predict"])  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where scenes and runs are written")
    parser.add_argument("--out", type=Path, default=RESULTS / "tile.csv")
    parser.add_argument("--worker", nargs=2, metavar=("METHOD", "JOB"))
    options = parser.parse_args()
    if options.worker:
        method, job = options.worker
        work(method, json.loads(job))
        return
    where = {
        "commit": commit(),
        "machine": f"{cpu_machine()}, Python {platform.python_version()}",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        published = []
        for row in bench(Path(folder), options):
            published.append(where | row)
            print(row)
    append_rows(options.out, COLUMNS, published)


if __name__ == "__main__":
    main()
