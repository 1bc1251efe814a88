"""A performance gate without a GPU: what every kernel takes of a multiprocessor at 14B shapes.

Each operation's public function is called on the meta device while launches are recorded; what it
would launch on sm_80, sm_90 and sm_100 is compiled with Triton's own assembler, and the registers,
stack (spills) and shared memory in the machine code are held against ``resources.json``.

    python -m dreamzero_kernels.resources            compare; exit status 1 if something got worse
    python -m dreamzero_kernels.resources --write    measure again and rewrite the table
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .common import FP8, Launch, recording
from .problems import PROBLEMS, WAN_14B, Maker

TABLE = Path(__file__).with_name("resources.json")
TARGETS = (80, 90, 100)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory a program can have, as the vendor's tables of compute capabilities say."""

_POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", FP8: "*fp8e4nv",
    torch.int32: "*i32",
}  # fmt: skip
_MATRIX = re.compile(r"\b(?:wgmma\.mma_async|tcgen05\.mma|mma\.sync)\b")
"""Product instructions of Hopper, Blackwell and Ampere; the last also run, slower, on the others."""


@dataclass(frozen=True)
class Resources:
    """One compiled kernel: registers a thread, bytes of stack a thread (0: nothing spilled), bytes of
    shared memory and warps a program, and the tensor-core instructions it uses ("" for none)."""

    registers: int
    stack: int
    shared: int
    warps: int
    matrix: str = ""

    def worse_than(self, known: Resources) -> list[str]:
        """What is more than 5 % above ``known`` (assemblers differ by a few registers), and any
        spill where there was none."""
        found = []
        for name in ("registers", "shared"):
            now, before = getattr(self, name), getattr(known, name)
            if now > 1.05 * before + 2:
                found.append(f"{name} {now}, was {before}")
        if self.stack > known.stack:
            found.append(f"spills {self.stack} bytes a thread, was {known.stack}")
        if self.matrix != known.matrix:
            found.append(f"tensor cores by {self.matrix or None}, were {known.matrix or None}")
        return found


def launches(name: str, capability: int) -> list[Launch]:
    """What the problem ``name`` launches at 14B shapes on a GPU of this capability."""
    with recording(capability) as recorded:
        PROBLEMS[name](Maker(torch.bfloat16, "meta"), WAN_14B).call("triton")
    return list(recorded)


def needs(launch: Launch) -> int:
    """Least compute capability: 89 where fp8 comes in or goes out."""
    fp8 = any(isinstance(x, Tensor) and x.dtype == FP8 for x in launch.arguments.values())
    return 89 if fp8 else 80


def compile_launch(launch: Launch, capability: int) -> Resources:
    """Compile for ``capability`` and read the machine code. Needs no GPU."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    for position, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if parameter.is_constexpr or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
            continue
        if isinstance(value, Tensor):
            signature[name] = _POINTERS[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        # As a launch would find it: allocations are aligned, and integers are looked at.
        if isinstance(value, Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(position,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(launch.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.num_warps, "num_stages": launch.num_stages},
    )
    registers, stack = _usage(compiled.asm["cubin"])
    matrix = sorted(set(_MATRIX.findall(compiled.asm["ptx"])))
    shared = compiled.metadata.shared
    return Resources(registers, stack, shared, launch.num_warps, ", ".join(matrix))


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes a thread, as the vendor's tool reads them from the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing about registers: {text!r}")
    return int(found[1]), int(found[2])


def measure(name: str) -> dict[str, Resources]:
    """``{"kernel sm_90": resources}`` of one problem on all targets that can run it."""
    found = {}
    least = max(map(needs, launches(name, TARGETS[-1])))
    for capability in TARGETS:
        if capability >= least:
            for launch in launches(name, capability):
                key = f"{launch.kernel.__name__.removesuffix('_kernel')} sm_{capability}"
                found[key] = compile_launch(launch, capability)
    return found


def read_table() -> dict[str, dict[str, Resources]]:
    """The committed table: problem -> "kernel sm_90" -> resources."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))["kernels"]
    return {
        name: {key: Resources(**row) for key, row in rows.items()} for name, rows in table.items()
    }


def compare(name: str, known: dict[str, Resources]) -> list[str]:
    """Complaints about one problem, empty where it is as good as the table says."""
    found = measure(name)
    if found.keys() != known.keys():
        return [f"{name}: compiled for {sorted(found)}, the table has {sorted(known)}"]
    return [f"{name}: {key}: {text}" for key in found for text in found[key].worse_than(known[key])]


def write_table() -> None:
    """Compile everything and rewrite ``resources.json``."""
    table = {name: {key: asdict(row) for key, row in measure(name).items()} for name in PROBLEMS}
    lines = [
        f'  "{name}": {{\n'
        + ",\n".join(f'   "{key}": {json.dumps(row)}' for key, row in rows.items())
        + "\n  }"
        for name, rows in table.items()
    ]
    text = f'{{\n "triton": "{triton.__version__}",\n "kernels": {{\n' + ",\n".join(lines)
    TABLE.write_text(text + "\n }\n}\n", encoding="utf-8")


def main() -> int:
    """Compare with the committed table, or rewrite it; exit status 1 where they differ."""
    parser = argparse.ArgumentParser(prog="python -m dreamzero_kernels.resources")
    parser.add_argument("--write", action="store_true", help="rewrite resources.json")
    if parser.parse_args().write:
        write_table()
        return 0
    complaints = [text for name, known in read_table().items() for text in compare(name, known)]
    print("\n".join(complaints) or "no kernel takes more than resources.json says")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
