"""Compiles the fused kernel for a GPU that is not there, and reads the machine code."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from geohsal.kernels.plar.triton_kernel import plar_kernel
from geohsal.kernels.plar.triton_path import Layout

_POINTERS = {
    "pseudo_ptr": "i64",
    "center_ptr": "fp32",
    "weight_ptr": "fp16",
    "row_ptr": "fp32",
    "shift_ptr": "fp32",
    "high_ptr": "fp16",
    "low_ptr": "fp16",
    "flat_ptr": "fp32",
    "variance_ptr": "bf16",
    "class_ptr": "fp32",
    "scratch_ptr": "fp32",
    "euclid_class_ptr": "u8",
    "euclid_ptr": "fp32",
    "q_class_ptr": "u8",
    "q_ptr": "fp32",
    "chosen_ptr": "u8",
    "mahalanobis_ptr": "fp32",
    "code_ptr": "u8",
    "near_ptr": "u8",
}
_INTEGERS = ("x_row", "x_col", "pixels", "channels", "classes", "known", "slots", "stride")
_ALIGNED = ("x_row", "channels", "slots", "stride")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCode:
    """What the compiler made."""

    instructions: list[str]
    labels: dict[str, int]
    registers: int
    shared_bytes: int

    def loops_with(self, opcode: str) -> list[list[str]]:
        """Instructions of the innermost loops that hold an opcode."""
        spans = []
        for place, line in enumerate(self.instructions):
            jump = re.search(r"BRA\b.*`\((\.L\w+)\)", line)
            if jump and self.labels.get(jump.group(1), place + 1) <= place:
                spans.append((self.labels[jump.group(1)], place))
        inner = [
            span
            for span in spans
            if not any(o != span and span[0] <= o[0] and o[1] <= span[1] for o in spans)
        ]
        bodies = [self.instructions[first : last + 1] for first, last in inner]
        return [body for body in bodies if any(opcode in line for line in body)]


def compile_plar(
    sizes: tuple[int, ...], capability: int, *, features: str, shared_bytes: int
) -> MachineCode:
    """Machine code of the kernel for classes, prototypes, components and features."""
    names = ("classes", "prototypes", "dim", "channels")
    layout = Layout.choose(**dict(zip(names, sizes, strict=True)), shared_bytes=shared_bytes)
    constants = layout.constants | {"ROBUST": True, "AGREEMENT": True, "x_col": 1}
    signature, values, attributes = {}, {}, {}
    for place, name in enumerate(plar_kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            values[(place,)] = constants[name]
        elif name.endswith("_ptr"):
            signature[name] = "*" + _POINTERS.get(name, features)
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if name in _INTEGERS else "fp32"
            if name in _ALIGNED:
                attributes[(place,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(plar_kernel, signature, values, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=layout.options,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(compiled.asm["cubin"])
        usage = _run(_TOOLS / "cuobjdump", "-res-usage", path)
        listing = _run(_TOOLS / "nvdisasm", "-c", path)
    instructions, labels = [], {}
    for line in listing.splitlines():
        label = re.match(r"\s*(\.L\w+):", line)
        if label:
            labels[label.group(1)] = len(instructions)
        found = re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(.*?);", line)
        if found:
            instructions.append(found.group(1))
    registers = re.search(r"REG:(\d+)", usage)
    assert registers is not None, usage
    return MachineCode(
        instructions=instructions,
        labels=labels,
        registers=int(registers.group(1)),
        shared_bytes=compiled.metadata.shared,
    )


def _run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=True)
    return done.stdout
