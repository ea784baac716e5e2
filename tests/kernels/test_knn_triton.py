"""The Triton first pass without a GPU: interpreted, and compiled ahead of time."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from geohsal.errors import KernelError

SHARED = {80: 166_912, 90: 232_448}  # bytes of shared memory that a program may have
CONFIGS = [(arch, dim) for arch in SHARED for dim in (32, 64, 128, 256)]


def test_the_interpreted_kernel_meets_the_definition():
    pytest.importorskip("triton", reason="triton is not installed")
    script = Path(__file__).with_name("interpret_knn.py")
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all shapes agree" in done.stdout


def test_a_device_with_too_little_shared_memory_is_one_clear_line():
    pytest.importorskip("triton", reason="triton is not installed")
    from geohsal.kernels.knn.triton_kernel import Tiling, tiling

    assert tiling(64, shared_bytes=SHARED[90]) == Tiling(lanes=128, stages=3)
    assert tiling(256, shared_bytes=SHARED[80]) == Tiling(lanes=64, stages=2)
    with pytest.raises(KernelError, match=r"512 components do not fit .* lower plar\.dim"):
        tiling(512, shared_bytes=SHARED[80])


@pytest.mark.parametrize(("arch", "dim"), CONFIGS)
def test_the_kernel_compiles_to_matrix_instructions_without_spills(arch, dim, tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    cubin, shared = _compile(arch, dim)
    assert shared <= SHARED[arch]
    assembly = _disassemble(cubin, tmp_path)
    start, end = _main_loop(assembly)
    instruction = {80: "HMMA", 90: "HGMMA"}[arch]
    inside = "\n".join(assembly[start:end])
    assert re.search(rf"\b{instruction}\.", inside), "no matrix instruction in the loop"
    assert not re.search(r"\b(LDL|STL)\b", inside), "registers spill in the loop"


def _compile(arch: int, dim: int) -> tuple[bytes, int]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from geohsal.kernels.knn.triton_kernel import (
        GROUP,
        ROWS,
        WARPS,
        group_minima_kernel,
        tiling,
    )

    shape = tiling(dim, shared_bytes=SHARED[arch])
    types = ["*fp16", "*fp16", "*fp32", "*fp32", "i32", "i32", "fp32", *["constexpr"] * 4]
    source = ASTSource(
        group_minima_kernel,
        signature=dict(zip(group_minima_kernel.arg_names, types, strict=True)),
        constexprs={"GROUP": GROUP, "ROWS": ROWS, "LANES": shape.lanes, "DIM": dim},
        attrs={(place,): [["tt.divisibility", 16]] for place in (0, 1, 2, 3, 5)},
    )
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", arch, 32),
        options={"num_warps": WARPS, "num_stages": shape.stages, "enable_fp_fusion": True},
    )
    return compiled.asm["cubin"], compiled.metadata.shared


def _disassemble(cubin: bytes, folder: Path) -> list[str]:
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    env = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(tools / "cuobjdump"), "-sass", str(path)],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()


def _main_loop(assembly: list[str]) -> tuple[int, int]:
    """Lines of the longest backward jump, which holds the walk through a group's members."""
    address = {}
    for number, line in enumerate(assembly):
        if found := re.search(r"/\*([0-9a-f]{4,})\*/", line):
            address.setdefault(int(found.group(1), 16), number)
    loops = []
    for number, line in enumerate(assembly):
        if found := re.search(r"\bBRA(?:\.\w+)*\s.*?\(?0x([0-9a-f]+)", line):
            target = address.get(int(found.group(1), 16), number)
            loops.append((target, number))
    start, end = max(loops, key=lambda loop: loop[1] - loop[0])
    assert end > start, "no loop"
    return start, end
