"""The fused kernel without a GPU: its source interpreted, and compiled ahead of time.

Interpreter and compiler disagree now and then, so both look at it. What neither shows: timing,
and races between threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from plar_cases import TOLERANCES, pairwise_cases

from geohsal.errors import KernelError
from geohsal.kernels.plar import Kernel, plar_scores, prepare, triton_path

if TYPE_CHECKING:
    from plar_machine_code import MachineCode

HERE = Path(__file__).parent
SHARED_BYTES = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}  # CUDA programming guide
LAYOUTS = [  # classes, prototypes, dim, channels
    (6, 1, 32, 24),
    (6, 1, 32, 64),
    (6, 1, 32, 256),
    (20, 1, 64, 64),
    (20, 3, 128, 128),
    (20, 1, 256, 256),
    (6, 1, 32, 512),
]
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


def interpret(which: str) -> list[dict[str, object]]:
    """Lines of interpret_plar.py."""
    paths = [str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(HERE / "interpret_plar.py"), which],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@needs_triton
def test_the_source_meets_the_reference_on_odd_shapes():
    lines = interpret("pairwise")
    assert 20 <= len(pairwise_cases()) <= 40
    assert len(lines) == len(pairwise_cases())
    limit = TOLERANCES["triton"]
    for line in lines:
        assert line["outside"] == 0, line  # no decision differs but where it says so
        assert line["wrong"] == 0, line  # and none after the near ties are scored again
        assert line["classes"] == 0, line
        assert line["mahalanobis"] <= limit.mahalanobis, line
        assert line["euclid"] <= limit.euclid, line
    assert {code for line in lines for code in line["codes"]} == {1, 2, 3, 4}
    assert sum(line["flagged"] > 0.2 for line in lines) == 0


@needs_triton
def test_the_source_meets_the_reference_in_special_cases():
    lines = {line["case"]: line for line in interpret("special")}
    assert len(lines) == 11
    for line in lines.values():
        assert (line["outside"], line["wrong"], line["classes"]) == (0, 0, 0), line
    assert 0 in lines["impossible rows"]["codes"]
    assert lines["exact ties"]["flagged"] == 1.0


def test_a_kernel_that_cannot_run_is_an_error(make_problem, monkeypatch):
    problem = make_problem(10)
    with pytest.raises(KernelError, match=r"plar\.kernel triton: it needs a CUDA device"):
        plar_scores(problem.features, problem.pseudo, problem.operands, kernel=Kernel.TRITON)
    monkeypatch.setattr("geohsal.kernels.plar.op.CPU_HALVES", False)
    with pytest.raises(KernelError, match="torch-half: this processor has no bfloat16"):
        prepare(problem.operands, Kernel.TORCH_HALF)


def test_a_gpu_that_is_too_old_or_a_missing_triton_is_named(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    if find_spec("triton") is not None:
        assert "compute capability 8.0" in triton_path.why_unavailable(device)
    monkeypatch.setattr(triton_path, "find_spec", lambda name: None)
    assert "triton is not installed" in triton_path.why_unavailable(device)


@pytest.mark.parametrize("shared_bytes", SHARED_BYTES.values())
@pytest.mark.parametrize("sizes", LAYOUTS)
def test_blocks_fit_into_shared_memory(sizes, shared_bytes):
    names = ("classes", "prototypes", "dim", "channels")
    layout = triton_path.Layout.choose(
        **dict(zip(names, sizes, strict=True)), shared_bytes=shared_bytes
    )
    constants = layout.constants
    assert constants["FP"] >= layout.channels
    assert constants["DP"] >= layout.dim
    assert constants["DP"] % constants["BN"] == 0 or constants["BN"] % constants["DP"] == 0
    assert layout.slots > layout.classes
    held = constants["BQ"] * constants["FP"] * 2
    moving = constants["STAGES"] * constants["BN"] * constants["FP"] * 2
    assert held + moving <= shared_bytes


@needs_triton
def test_the_default_shape_compiles_for_hopper():
    _check_machine_code((6, 1, 32, 64), 90, "fp32")


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("sizes", LAYOUTS)
def test_every_shape_compiles_to_matrix_instructions(sizes, capability):
    _check_machine_code(sizes, capability, "fp32")


@pytest.mark.slow
@needs_triton
@pytest.mark.parametrize("features", ["fp16", "bf16"])
def test_half_precision_features_compile(features):
    _check_machine_code((6, 1, 32, 256), 90, features)


@pytest.mark.slow
@needs_triton
def test_the_gpu_benchmark_is_ready_to_run(tmp_path):
    out = tmp_path / "rows.csv"
    script = HERE.parent / "benchmarks" / "bench_plar_gpu.py"
    options = ["--device", "cpu", "--pixels", "64", "--repeats", "1", "--shapes", "1"]
    paths = [str(script.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(script), *options, "--tune", "--out", str(out)],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "WRONG" not in done.stdout
    methods = {line.split(",")[10] for line in out.read_text().splitlines()[1:]}
    assert {"fused", "torch", "torch einsum", "cdist"} <= methods


@pytest.mark.slow
@needs_triton
def test_small_gpus_have_enough_shared_memory():
    for sizes in LAYOUTS:
        _compiled(sizes, 86, "fp32")


def _check_machine_code(sizes: tuple[int, ...], capability: int, features: str) -> None:
    code = _compiled(sizes, capability, features)
    main = code.loops_with("HGMMA" if capability == 90 else "HMMA")
    assert main, "no loop multiplies matrices"
    for loop in main:
        assert not any(line.startswith(("LDL", "STL")) for line in loop), "spills in a main loop"


def _compiled(sizes: tuple[int, ...], capability: int, features: str) -> MachineCode:
    from plar_machine_code import compile_plar

    limit = SHARED_BYTES[capability]
    code = compile_plar(sizes, capability, features=features, shared_bytes=limit)
    assert code.shared_bytes <= limit
    assert code.registers <= 255
    return code
