"""Neighbour search beside cdist + topk, scikit-learn's brute force and faiss's flat index.

    python tests/benchmarks/bench_knn.py [--repeats 5] [--device cpu|cuda] [--out FILE.csv]

On the CPU: one thread, CPU time, methods interleaved, one warm-up each. On CUDA: events. The own
search is timed whole: padding, first pass, proof and ranking. Indexes of the peers are built
outside the clock. Rows are appended to the results; `ratio` is the peer's median over ours, in the
same run. `agree` is the share of pixels whose 16 neighbours are those of the definition.
"""

import argparse
import importlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import RESULTS, append_rows, commit, cpu_machine
from torch import Tensor

from geohsal.kernels.knn.op import _passes
from geohsal.kernels.knn.reference import nearest_by_definition
from geohsal.kernels.knn.search import nearest

COLUMNS = (
    "commit", "machine", "device", "pixels", "bank", "dim", "k", "dtype", "method", "repeats",
    "p20_ms", "p50_ms", "p80_ms", "ratio", "agree",
)  # fmt: skip
K = 16
CPU_SHAPES = [
    (1024, 10_000, 64),
    (1024, 10_000, 256),
    (512, 100_000, 64),
    (512, 100_000, 256),
    (256, 1_000_000, 64),
]
CUDA_SHAPES = [(1 << 18, 10_000, 64), (1 << 18, 100_000, 64), (1 << 18, 100_000, 256)]
Search = Callable[[], Tensor]


def own(points: Tensor, bank: Tensor, *, backend: str) -> Search:
    """The search of `plar.rule=knn`; gives the neighbours' bank rows."""
    passes = _passes(backend, points.device)
    return lambda: nearest(points, bank, K + 1, passes).row[:, :K]


def by_cdist(points: Tensor, bank: Tensor) -> Search:
    """In blocks of pixels that keep the distances within 256 MB."""
    step = max(1, 64_000_000 // len(bank))
    return lambda: torch.cat(
        [torch.cdist(rows, bank).topk(K, 1, largest=False).indices for rows in points.split(step)]
    )


def by_sklearn(points: Tensor, bank: Tensor) -> Search:
    """`NearestNeighbors`, brute force."""
    neighbors = importlib.import_module("sklearn.neighbors")
    index = neighbors.NearestNeighbors(n_neighbors=K, algorithm="brute").fit(bank.numpy())
    return lambda: torch.from_numpy(index.kneighbors(points.numpy(), return_distance=False))


def by_faiss(points: Tensor, bank: Tensor) -> Search:
    """`IndexFlatL2`."""
    faiss = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    return lambda: torch.from_numpy(index.search(points.numpy(), K)[1])


def by_cuvs(points: Tensor, bank: Tensor) -> Search:
    """Brute force of cuVS, where it is installed."""
    brute_force = importlib.import_module("cuvs.neighbors.brute_force")
    index = brute_force.build(bank, metric="sqeuclidean")
    return lambda: torch.as_tensor(brute_force.search(index, points, K)[1], device=points.device)


def searches(points: Tensor, bank: Tensor) -> dict[str, Search]:
    """All methods that can run on the device of the tensors."""
    found = {
        "geohsal": own(points, bank, backend="torch"),
        "cdist+topk": by_cdist(points, bank),
    }
    if points.is_cuda:
        optional = {"cuvs brute force": ("cuvs", by_cuvs)}
    else:
        found["sklearn brute"] = by_sklearn(points, bank)
        optional = {"faiss flat": ("faiss", by_faiss)}
    for name, (module, make) in optional.items():
        if importlib.util.find_spec(module) is None:
            print(f"!! {module} is not installed: no row for {name}")
            continue
        found[name] = make(points, bank)
        if module == "faiss":
            found["geohsal, faiss backend"] = own(points, bank, backend="faiss")
    return found


def milliseconds(search: Search, device: str) -> float:
    """One run."""
    if device == "cpu":
        began = time.process_time()
        search()
        return 1000 * (time.process_time() - began)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    search()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def bench(pixels: int, bank_pixels: int, dim: int, *, device: str, repeats: int) -> list[dict]:
    """Rows of one shape."""
    generator = torch.Generator().manual_seed(dim)
    bank = torch.randn(bank_pixels, dim, generator=generator).to(device)
    points = torch.randn(pixels, dim, generator=generator).to(device)
    methods = searches(points, bank)
    sample = points[:64]
    exact = nearest_by_definition(sample, bank, K).row
    agree = {
        name: float((search()[:64].to(exact.device) == exact).all(1).double().mean())
        for name, search in methods.items()
    }  # the warm-up
    times: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(repeats):
        for name, search in methods.items():
            times[name].append(milliseconds(search, device))
    mine = float(np.median(times["geohsal"]))
    rows = []
    for name, values in times.items():
        low, middle, high = (round(float(v), 3) for v in np.percentile(values, (20, 50, 80)))
        rows.append(
            {"device": device, "pixels": pixels, "bank": bank_pixels, "dim": dim, "k": K,
             "dtype": "float32", "method": name, "repeats": repeats, "p20_ms": low,
             "p50_ms": middle, "p80_ms": high, "ratio": round(middle / mine, 3),
             "agree": round(agree[name], 4)}
        )  # fmt: skip
    return rows


def main() -> None:
    """Append the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out or RESULTS / f"knn_{options.device}.csv"
    name = torch.cuda.get_device_name() if options.device == "cuda" else "no GPU"
    where = {"commit": commit(), "machine": f"{cpu_machine()}, {name}"}
    for shape in CPU_SHAPES if options.device == "cpu" else CUDA_SHAPES:
        rows = bench(*shape, device=options.device, repeats=options.repeats)
        for row in rows:
            print({key: row[key] for key in ("bank", "dim", "method", "p50_ms", "ratio", "agree")})
        append_rows(out, COLUMNS, [where | row for row in rows])


if __name__ == "__main__":
    main()
