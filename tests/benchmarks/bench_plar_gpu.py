"""PLAR on a GPU: is it right, and how near to the hardware? One command, under ten minutes.

    python tests/benchmarks/bench_plar_gpu.py [--pixels 1048576] [--repeats 20] [--out FILE.csv]

First every configuration is compared with float64 on fresh random inputs, its outputs filled with
wrong values before; a wrong decision ends the run with exit code 1. Then medians by CUDA events,
interleaved: the fused kernel alone and with its near ties scored again, the chunked torch paths,
einsum in float32, torch.compile of that, cdist. In the same run the ceilings: a product of 8192 x
8192 halves, and a copy. `of_gemm` is the share of the product's rate that the whitening and
Euclidean products alone reach. `--tune` also tries other blocks. Rows are appended to the results;
bench_knn.py follows.

Under TRITON_INTERPRET=1 with --device cpu --pixels 256 the same steps run without a GPU; such rows
say nothing about speed and are written only where --out is given.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from measure import RESULTS, append_rows, commit
from plar_cases import (
    TOLERANCES,
    Problem,
    largest_error,
    make_problem,
    pairwise_cases,
    wrong_decisions,
)

from geohsal.errors import KernelError
from geohsal.kernels.plar import PlarScores, Rule, reference_scores, triton_path
from geohsal.kernels.plar.decision import Settings
from geohsal.kernels.plar.rounding import round_operands
from geohsal.kernels.plar.torch_path import chunked_scores

COLUMNS = (
    "commit", "device", "torch", "triton", "pixels", "features", "dim", "classes", "prototypes",
    "dtype", "method", "repeats", "ms_median", "ms_p20", "ms_p80", "ratio", "of_gemm", "near_ties",
    "peak_mib", "note",
)  # fmt: skip
SHAPES = [  # features, components, classes, prototypes; the first is the default
    (64, 32, 6, 1),
    (256, 32, 6, 1),
    (64, 64, 20, 1),
    (128, 128, 20, 1),
    (256, 256, 6, 1),
    (256, 256, 20, 1),
    (256, 256, 20, 4),
]
TRIED_BLOCKS = [(128, 128, 2), (128, 128, 3), (128, 64, 3), (128, 64, 4), (64, 64, 4)]
_GEMM_SIDE = 8192
_SLOW_SECONDS = 0.1  # per call: five repetitions will do
_SETTINGS = Settings(Rule.ROBUST, agreement=False, tie=1e-4)
Call = Callable[[], object]


class Bench:
    """A device, its clock and its two ceilings."""

    def __init__(self, device: torch.device, *, pixels: int, repeats: int) -> None:
        self.device = device
        self.pixels = pixels
        self.repeats = repeats
        self.gemm_flops, self.copy_bytes = self._ceilings()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _ceilings(self) -> tuple[float, float]:
        """Rate of a large product of halves, and of a copy (read and write)."""
        side = _GEMM_SIDE if self.on_gpu else 64
        a = torch.randn(side, side, device=self.device).half()
        b = torch.randn(side, side, device=self.device).half()
        source = torch.empty(side * side * 4, device=self.device)
        target = torch.empty_like(source)
        seconds = self.times({"gemm": lambda: a @ b, "copy": lambda: target.copy_(source)})
        gemm = 2 * side**3 / statistics.median(seconds["gemm"])
        copy = 8 * source.numel() / statistics.median(seconds["copy"])
        return gemm, copy

    def times(self, calls: dict[str, Call]) -> dict[str, list[float]]:
        """Seconds of each call, in turns after two warm-ups each."""
        repeats = {}
        for name, call in calls.items():
            call()
            slow = self._once(call) > _SLOW_SECONDS
            repeats[name] = min(self.repeats, 5) if slow else self.repeats
        found: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(self.repeats):
            for name, call in calls.items():
                if turn < repeats[name]:
                    found[name].append(self._once(call))
        return found

    def _once(self, call: Call) -> float:
        if not self.on_gpu:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

    def peak_mib(self, call: Call) -> float | str:
        """Memory that a call takes beyond what was there before."""
        if not self.on_gpu:
            return ""
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def fused(problem: Problem, *, raw: bool) -> Call:
    """The fused kernel, with operands packed once as in a query."""
    rounded = round_operands(problem.operands, torch.float16)
    packed = triton_path.pack(problem.operands, rounded).tensors()
    run = triton_path.raw_scores if raw else triton_path.fused_scores
    return lambda: run(
        problem.features,
        problem.pseudo,
        problem.operands,
        packed,
        scale=rounded.scale,
        settings=_SETTINGS,
    )


def chunked(problem: Problem, *, halves: bool) -> Call:
    """The torch path; in chunks that keep launches few."""
    operands = problem.operands
    rounded = round_operands(operands, torch.float16) if halves else None
    values = operands.bias.shape[0] * operands.bias.shape[2]
    step = max(1 << 15, (8 << 20) // values)
    return lambda: chunked_scores(
        problem.features,
        problem.pseudo,
        operands,
        settings=_SETTINGS,
        chunk_pixels=step,
        rounded=rounded,
    )


def einsum_scores(
    features: torch.Tensor, center: torch.Tensor, means: torch.Tensor, whitening: torch.Tensor
) -> torch.Tensor:
    """The usual way in float32: all differences, whitened, squared, the two best of each."""
    gaps = (features - center)[:, None, None] - means
    white = torch.einsum("nckf,cdf->nckd", gaps, whitening)
    return white.square().sum(3).amin(2).topk(min(2, len(means)), 1, largest=False).values


def in_chunks(problem: Problem, score: Callable[..., torch.Tensor]) -> Call:
    """A peer, in chunks whose differences fit into 2 GiB."""
    operands = problem.operands
    _, channels = problem.features.shape
    classes, prototypes, dim = operands.bias.shape
    step = max(128, (1 << 29) // (classes * prototypes * (channels + dim)) // 128 * 128)

    def call() -> torch.Tensor:
        return torch.cat(
            [
                score(rows.float(), operands.center, operands.prototypes, operands.whitening)
                for rows in problem.features.split(step)
            ]
        )

    return call


def cdist_scores(problem: Problem) -> Call:
    """Euclid alone by cdist, after whitening class by class: Mahalanobis as a library gives it."""
    operands = problem.operands

    def call() -> torch.Tensor:
        centred = problem.features.float() - operands.center
        found = [
            torch.cdist(centred @ white.T, bias).amin(1)
            for white, bias in zip(operands.whitening, operands.bias, strict=True)
        ]
        return torch.stack(found, 1).topk(min(2, len(found)), 1, largest=False).values

    return call


def check(bench: Bench) -> int:
    """Number of wrong decisions over all configurations; each is printed."""
    empty = triton_path._empty_scores

    def poisoned(pixels: int, device: torch.device) -> PlarScores:
        scores = empty(pixels, device)
        for column in scores:
            column.fill_(77 if column.dtype is torch.uint8 else True)
        return scores

    triton_path._empty_scores = poisoned
    wrong = 0
    for name, problem in problems_to_check(bench):
        wanted = reference_scores(problem.features, problem.pseudo, problem.operands)
        raw = fused(problem, raw=True)()
        try:
            full = fused(problem, raw=False)()
        except KernelError as error:
            print(f"WRONG {name}: {error}", flush=True)
            wrong += 1
            continue
        outside = int((wrong_decisions(raw, wanted) & ~raw.near_tie).sum())
        after = int(wrong_decisions(full, wanted).sum())
        far = wanted.mahalanobis > 0.1 * problem.operands.bias.shape[2]
        error = largest_error(raw.mahalanobis[far], wanted.mahalanobis[far])
        good = outside == after == 0 and error <= TOLERANCES["triton"].mahalanobis
        wrong += 0 if good else max(1, outside + after)
        flagged = float(raw.near_tie.float().mean())
        verdict = "ok   " if good else "WRONG"
        print(f"{verdict} {name}: {outside} outside, {after} after, error {error:.1e}, "
              f"near ties {flagged:.4f}", flush=True)  # fmt: skip
    triton_path._empty_scores = empty
    return wrong


def problems_to_check(bench: Bench) -> Iterator[tuple[str, Problem]]:
    """Odd shapes, then the benchmark's shapes with many pixels."""
    for case in pairwise_cases():
        yield str(tuple(case)), case.make().to(bench.device)
    for number, (features, dim, classes, prototypes) in enumerate(SHAPES):
        problem = make_problem(
            min(bench.pixels, 200_000),
            classes=classes,
            prototypes=prototypes,
            dim=dim,
            channels=features,
            offset=10.0,
            seed=number,
        )
        yield str(SHAPES[number]), problem.to(bench.device)


def measure(
    bench: Bench, problem: Problem, dtype: torch.dtype, *, tune: bool
) -> list[dict[str, object]]:
    """Rows of one problem, its features in this type."""
    classes, prototypes, dim = problem.operands.bias.shape
    features = problem.features.shape[1]
    shape = (features, dim, classes, prototypes)
    problem = Problem(
        operands=problem.operands, features=problem.features.to(dtype), pseudo=problem.pseudo
    )
    calls = {
        "fused": fused(problem, raw=False),
        "fused, kernel alone": fused(problem, raw=True),
        "torch-half": chunked(problem, halves=True),
        "torch": chunked(problem, halves=False),
        "torch einsum": in_chunks(problem, einsum_scores),
        "cdist": cdist_scores(problem),
    }
    if not bench.on_gpu:
        del calls["torch-half"]  # a CPU has no products of float16
    if bench.on_gpu and dtype is torch.float32:
        torch._dynamo.reset()  # sizes of the shape before would make it dynamic
        calls["torch.compile einsum"] = in_chunks(problem, torch.compile(einsum_scores))
    if tune:
        calls |= tuned(problem)
    ties = float(calls["fused, kernel alone"]().near_tie.float().mean())
    flops = 2 * bench.pixels * features * (dim * (classes + 1) + 3 * classes * prototypes)
    seconds = bench.times(calls)
    base = statistics.median(seconds["fused"])
    rows = []
    for name, values in seconds.items():
        ordered = sorted(values)
        middle = statistics.median(ordered)
        row = {
            "commit": commit(),
            "device": torch.cuda.get_device_name() if bench.on_gpu else "cpu",
            "torch": torch.__version__,
            "triton": _triton_version(),
            "pixels": bench.pixels,
            "features": features,
            "dim": dim,
            "classes": classes,
            "prototypes": prototypes,
            "dtype": str(dtype).removeprefix("torch."),
            "method": name,
            "repeats": len(values),
            "ms_median": round(1e3 * middle, 4),
            "ms_p20": round(1e3 * ordered[len(ordered) // 5], 4),
            "ms_p80": round(1e3 * ordered[-1 - len(ordered) // 5], 4),
            "ratio": round(middle / base, 3),
            "of_gemm": round(flops / middle / bench.gemm_flops, 3),
            "near_ties": round(ties, 5) if name.startswith("fused") else "",
            "peak_mib": bench.peak_mib(calls[name]),
            "note": f"gemm {bench.gemm_flops / 1e12:.0f} TFLOP/s, copy "
            f"{bench.copy_bytes / 1e12:.2f} TB/s",
        }
        rows.append(row)
        print(shape, row["dtype"], name, row["ms_median"], "ms, x", row["ratio"], "of gemm",
              row["of_gemm"], flush=True)  # fmt: skip
    return rows


def tuned(problem: Problem) -> dict[str, Call]:
    """The kernel alone with other blocks; those that do not fit are left out."""
    calls: dict[str, Call] = {}
    chosen = triton_path.Layout.of(problem.operands)
    for pixels, rows, stages in TRIED_BLOCKS:
        layout = chosen._replace(pixels=pixels, rows=rows, stages=stages)
        held = 2 * layout.features * (pixels + rows * stages) + (8 << 10)
        if layout == chosen or held > triton_path.shared_bytes(problem.features.device):
            continue
        calls[f"kernel {pixels}x{rows}, {stages} stages"] = _with_layout(problem, layout)
    return calls


def _with_layout(problem: Problem, layout: triton_path.Layout) -> Call:
    choose = triton_path.Layout.choose

    def forced(call: Call) -> object:
        triton_path.Layout.choose = lambda **_: layout
        try:
            return call()
        finally:
            triton_path.Layout.choose = choose

    packed: list[Call] = []
    forced(lambda: packed.append(fused(problem, raw=True)))
    return lambda: forced(packed[0])


def _triton_version() -> str:
    import triton

    return str(triton.__version__)


def main() -> int:
    """Check, measure, append rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--pixels", type=int, default=1 << 20)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; see --help for a run without one")
        return 2
    began = time.perf_counter()
    bench = Bench(device, pixels=options.pixels, repeats=options.repeats)
    wrong = check(bench)
    if wrong:
        print(f"{wrong} wrong decisions: nothing is measured")
        return 1
    out = options.out or (RESULTS / "plar_gpu.csv" if bench.on_gpu else None)
    for features, dim, classes, prototypes in SHAPES[: options.shapes]:
        sizes = {"classes": classes, "prototypes": prototypes, "dim": dim, "channels": features}
        problem = make_problem(bench.pixels, **sizes).to(bench.device)
        for dtype in (torch.float32, torch.float16):
            rows = measure(bench, problem, dtype, tune=options.tune)
            if out is not None:  # at once: whatever stops the run, these stay
                append_rows(out, COLUMNS, rows)
        print(f"-- {time.perf_counter() - began:.0f} s", flush=True)
    if not bench.on_gpu:
        return 0
    neighbours = [sys.executable, str(Path(__file__).with_name("bench_knn.py")), "--device", "cuda"]
    if options.out is not None:
        neighbours += ["--out", str(options.out.with_name("knn_cuda.csv"))]
    return subprocess.run(neighbours, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
