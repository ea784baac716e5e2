"""PLAR scores on a CPU beside other ways to get Mahalanobis distances.

    python tests/benchmarks/bench_plar_cpu.py [--repeats 7] [--out FILE.csv]

One thread, CPU time, methods interleaved, one warm-up each. Ours is the whole operator: both
distances, rankings, gates, codes, near ties again; the peers give distances only. `ratio` is the
peer's median over that of `torch`, in the same turns. `wrong` counts decisions that differ from
float64. The row `memory` gives the growth of resident memory in a process of its own.
"""

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from measure import RESULTS, append_rows, commit, cpu_machine, interleaved, spread
from plar_cases import Problem, make_problem, wrong_decisions
from scipy.spatial.distance import cdist
from sklearn.metrics import pairwise_distances
from sklearn.mixture import GaussianMixture

from geohsal.kernels.plar import Kernel, plar_scores, prepare, reference_scores
from geohsal.kernels.plar.op import CPU_HALVES

COLUMNS = (
    "commit", "machine", "pixels", "features", "dim", "classes", "prototypes", "method", "repeats",
    "us_per_pixel", "us_least", "us_most", "ratio", "wrong", "note",
)  # fmt: skip
SHAPES = [  # pixels, features, components, classes, prototypes
    (8192, 64, 32, 6, 1),
    (8192, 256, 32, 6, 1),
    (8192, 64, 64, 6, 1),
    (8192, 128, 128, 6, 1),
    (8192, 256, 256, 6, 1),
    (8192, 256, 256, 20, 1),
    (4096, 256, 256, 20, 4),
    (8192, 64, 64, 20, 4),
]
GROWTH = [  # only our own: pixels, classes, prototypes, components
    (2048, 64, 32, 6, 1),
    (32768, 64, 32, 6, 1),
    (8192, 64, 32, 20, 1),
    (8192, 64, 32, 80, 1),
    (8192, 64, 32, 6, 4),
    (8192, 512, 32, 6, 1),
]
NOTES = {
    (8192, 64, 32, 6, 1): "default: 32 components, projection folded in",
    (8192, 256, 32, 6, 1): "default: 32 components, projection folded in",
}


def own(problem: Problem, kernel: Kernel) -> Callable[[], object]:
    """The whole operator, with its operands prepared once as in a query."""
    prepared = prepare(problem.operands, kernel)
    return lambda: plar_scores(
        problem.features, problem.pseudo, problem.operands, prepared=prepared
    )


def torch_loop(problem: Problem) -> Callable[[], object]:
    """Prototype by prototype: subtract, whiten, square, sum."""
    operands = problem.operands

    def call() -> torch.Tensor:
        scores = []
        for c in range(operands.num_classes):
            gaps = [
                ((problem.features - operands.center - p) @ operands.whitening[c].T).square().sum(1)
                for p in operands.prototypes[c]
            ]
            scores.append(torch.stack(gaps).amin(0))
        return torch.stack(scores, 1).topk(2, dim=1, largest=False).values

    return call


def torch_einsum(problem: Problem) -> Callable[[], object]:
    """All differences at once, in chunks of 512 pixels."""
    operands = problem.operands

    def call() -> torch.Tensor:
        parts = []
        for rows in problem.features.split(512):
            gaps = (rows - operands.center)[:, None, None] - operands.prototypes
            white = torch.einsum("nckf,cdf->nckd", gaps, operands.whitening)
            parts.append(white.square().sum(3).amin(2).topk(2, dim=1, largest=False).values)
        return torch.cat(parts)

    return call


def sklearn_mixture(problem: Problem) -> Callable[[], object]:
    """`GaussianMixture` of full covariances over the projected features, its scores alone."""
    operands = problem.operands
    classes, prototypes, dim = operands.bias.shape
    square = operands.whitening.shape[1] == operands.whitening.shape[2]
    white = operands.whitening if square else operands.whitening[:, :, -dim:]
    points = (problem.features - operands.center)[:, -dim:].numpy()
    mixture = GaussianMixture(classes * prototypes)
    mixture.weights_ = np.full(classes * prototypes, 1 / (classes * prototypes))
    mixture.means_ = operands.prototypes[..., -dim:].flatten(0, 1).numpy()
    cholesky = white.repeat_interleave(prototypes, 0).transpose(1, 2)
    mixture.precisions_cholesky_ = np.ascontiguousarray(cholesky.numpy())
    mixture.covariance_type = "full"
    return lambda: mixture._estimate_weighted_log_prob(points)


def by_class(problem: Problem, distance: Callable[..., object]) -> Callable[[], object]:
    """A library's Mahalanobis distance, class by class, on features of D dimensions."""
    operands = problem.operands
    dim = operands.whitening.shape[1]
    points = (problem.features - operands.center)[:, -dim:].double().numpy()
    white = operands.whitening[:, :, -dim:].double()
    inverse = [(w.T @ w).numpy() for w in white]
    means = operands.prototypes[..., -dim:].double().numpy()

    def call() -> list[object]:
        return [
            distance(points, mean, metric="mahalanobis", VI=vi)
            for mean, vi in zip(means, inverse, strict=True)
        ]

    return call


def faiss_flat(problem: Problem) -> Callable[[], object]:
    """Whiten by class, then faiss's flat index over the prototypes."""
    import faiss

    faiss.omp_set_num_threads(1)
    operands = problem.operands
    indexes = []
    for bias in operands.bias:
        index = faiss.IndexFlatL2(bias.shape[1])
        index.add(bias.numpy())
        indexes.append(index)

    def call() -> list[object]:
        centred = problem.features - operands.center
        return [
            index.search((centred @ white.T).numpy(), 1)
            for index, white in zip(indexes, operands.whitening, strict=True)
        ]

    return call


def methods(problem: Problem, *, peers: bool) -> dict[str, Callable[[], object]]:
    """Ours, and the peers that are installed."""
    found = {"torch": own(problem, Kernel.TORCH)}
    if CPU_HALVES:
        found["torch-half"] = own(problem, Kernel.TORCH_HALF)
    if not peers:
        return found
    found |= {
        "torch loop": torch_loop(problem),
        "torch einsum": torch_einsum(problem),
        "sklearn GaussianMixture": sklearn_mixture(problem),
        "sklearn pairwise": by_class(problem, pairwise_distances),
        "scipy cdist": by_class(problem, cdist),
    }
    if importlib.util.find_spec("faiss"):
        found["faiss flat, whitened"] = faiss_flat(problem)
    return found


def measure(shape: tuple[int, ...], *, repeats: int, peers: bool) -> list[dict[str, object]]:
    """Rows of one shape."""
    pixels, features, dim, classes, prototypes = shape
    problem = make_problem(
        pixels, classes=classes, prototypes=prototypes, dim=dim, channels=features
    )
    found = methods(problem, peers=peers)
    seconds = interleaved(found, repeats=repeats)
    base = spread(seconds["torch"])[0]
    wanted = reference_scores(problem.features, problem.pseudo, problem.operands)
    rows = []
    for name, values in seconds.items():
        middle, least, most = (1e6 * value / pixels for value in spread(values))
        wrong: object = ""
        if name in ("torch", "torch-half"):
            scores = plar_scores(
                problem.features, problem.pseudo, problem.operands, kernel=Kernel(name)
            )
            wrong = int(wrong_decisions(scores, wanted).sum())
        rows.append(
            _row(shape, name)
            | {
                "repeats": repeats,
                "us_per_pixel": round(middle, 3),
                "us_least": round(least, 3),
                "us_most": round(most, 3),
                "ratio": round(spread(values)[0] / base, 3),
                "wrong": wrong,
                "note": NOTES.get(shape, ""),
            }
        )
    return rows


def _row(shape: tuple[int, ...], method: str) -> dict[str, object]:
    sizes = dict(zip(("pixels", "features", "dim", "classes", "prototypes"), shape, strict=True))
    return {"commit": commit(), "machine": cpu_machine(), "method": method} | sizes


def _growth_of_memory(pixels: int) -> float:
    """MiB that a call adds to the peak of this process, beyond its inputs and outputs."""
    problem = make_problem(pixels, classes=6, dim=32, channels=64)
    call = own(problem, Kernel.TORCH)
    small = make_problem(4096, classes=6, dim=32, channels=64)
    own(small, Kernel.TORCH)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown / 1024 - 2 * 25 * pixels / 2**20  # parts and their concatenation, 25 bytes each


def memory() -> list[dict[str, object]]:
    """Memory of a call at two numbers of pixels."""
    rows = []
    for pixels in (1 << 18, 1 << 20):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            grown = pool.apply(_growth_of_memory, (pixels,))
        note = f"memory: {max(0.0, grown):.0f} MiB beyond inputs and outputs"
        rows.append(_row((pixels, 64, 32, 6, 1), "torch") | {"note": note})
    return rows


def main() -> None:
    """Measure and append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "plar_cpu.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES + GROWTH:
        found = measure(shape, repeats=options.repeats, peers=shape in SHAPES)
        for row in found:
            print(shape, row["method"], row["us_per_pixel"], row["ratio"], row["wrong"], flush=True)
        rows += found
    rows += memory()
    append_rows(options.out, COLUMNS, rows)


if __name__ == "__main__":
    main()
