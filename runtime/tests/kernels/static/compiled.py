"""Compiles kernels for devices that are not there, and reads from the binary what can be held to a budget.

No CUDA toolkit is needed: ptxas and cuobjdump are inside the Triton wheel.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_89": GPUTarget("cuda", 89, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "sm_120": GPUTarget("cuda", 120, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# Per streaming multiprocessor or compute unit: shared memory in bytes, most of it for one program, most warps.
DEVICE = {
    "sm_80": (167936, 166912, 64),
    "sm_89": (102400, 101376, 48),
    "sm_90": (233472, 232448, 64),
    "sm_100": (233472, 232448, 64),
    "sm_120": (102400, 101376, 48),
    "gfx942": (65536, 65536, 32),
}
REGISTERS = 65536
HMMA_MACS = 16 * 8 * 16  # what one tensor-core instruction of a warp does; the unit of all budgets


@dataclass(frozen=True)
class Config:
    """One binary that a server may run."""

    kernel: object
    name: str
    arch: str
    pointers: Mapping[str, str]
    constants: Mapping[str, int | bool]
    warps: int
    stages: int
    loop_macs: int  # of the main loop's body, for the whole program
    aligned: tuple[str, ...] = ("N", "K", "W_STRIDE")  # sizes that are multiples of 16 in every model


@dataclass(frozen=True)
class Figures:
    registers: int
    spill_bytes: int
    shared: int
    programs: int  # per multiprocessor
    mma: str
    efficiency: float
    instructions_per_mma: float
    async_copies: int  # of 16 bytes, in the main loop
    in_flight: int  # bytes per multiprocessor
    pdl_wait: int
    pdl_launch: int


@cache
def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def _dump(cubin: bytes, flag: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_tool("cuobjdump"), flag, file.name], check=True, capture_output=True, text=True).stdout


def compile_config(config: Config) -> Figures:
    names = config.kernel.arg_names
    signature = {n: "constexpr" if n in config.constants else config.pointers.get(n, "i32") for n in names}
    constants = {(names.index(n),): value for n, value in config.constants.items()}
    # What the JIT finds out about its arguments: pointers and sizes in multiples of 16.
    attrs = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr") or n in config.aligned}
    options = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    source = ASTSource(config.kernel, signature, constexprs=constants, attrs=attrs)
    compiled = triton.compile(source, target=TARGETS[config.arch], options=options)
    shared = compiled.metadata.shared
    if config.arch == "gfx942":
        return _amd(config, compiled.asm["amdgcn"], shared)
    return _nvidia(config, compiled.asm["cubin"], compiled.asm["ptx"], shared)


def _nvidia(config: Config, cubin: bytes, ptx: str, shared: int) -> Figures:
    usage = _dump(cubin, "--dump-resource-usage")
    registers = int(re.search(r"REG:(\d+)", usage)[1])
    stack = int(re.search(r"STACK:(\d+)", usage)[1])
    instructions = _sass(_dump(cubin, "--dump-sass"))
    spills = sum(op.startswith(("LDL", "STL")) for _, op, _ in instructions)
    mma, macs, body = _main_loop(_sass_loops(instructions), _nvidia_macs)
    per_sm, _, warps = DEVICE[config.arch]
    allocated = -(-registers // 8) * 8 * 32 * config.warps
    programs = min(REGISTERS // allocated, per_sm // (shared + 1024), warps // config.warps, 32)
    return Figures(
        registers=registers,
        spill_bytes=stack + 4 * spills,
        shared=shared,
        programs=programs,
        mma=mma,
        efficiency=config.loop_macs / config.warps / macs if macs else 0.0,
        instructions_per_mma=len(body) * HMMA_MACS / macs if macs else float("inf"),
        async_copies=sum(op.startswith("UTMALDG") or (op.startswith("LDGSTS") and ".128" in op) for op in body),
        in_flight=shared * programs * (config.stages - 1) // config.stages,
        pdl_wait=ptx.count("griddepcontrol.wait"),
        pdl_launch=ptx.count("griddepcontrol.launch_dependents"),
    )


def _sass(text: str) -> list[tuple[int, str, str]]:
    """(address, operation, operands) of each instruction, predicates dropped."""
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Za-z0-9_.]*)\s*([^;]*);", text)
    return [(int(address, 16), op, operands) for address, op, operands in found]


def _sass_loops(instructions: list[tuple[int, str, str]]) -> list[list[str]]:
    """The bodies of all backward branches."""
    loops = []
    for address, op, operands in instructions:
        target = re.search(r"0x([0-9a-f]+)", operands) if op.startswith("BRA") else None
        if target and int(target[1], 16) < address:
            loops.append([o for a, o, _ in instructions if int(target[1], 16) <= a <= address])
    return loops


def _nvidia_macs(op: str) -> int:
    """Multiply-adds per warp."""
    if op.startswith("HMMA.16816"):
        return HMMA_MACS
    if match := re.match(r"HGMMA\.64x(\d+)x16", op):
        return 64 * int(match[1]) * 16 // 4
    return 0


def _main_loop(loops: list[list[str]], macs_of) -> tuple[str, int, list[str]]:
    """(matrix instruction, multiply-adds per warp, body) of the loop with the most multiply-adds.

    Nested or rotated loops contain one another: of equals, the shortest.
    """
    best = max(loops, key=lambda body: (sum(map(macs_of, body)), -len(body)), default=[])
    macs = sum(map(macs_of, best))
    kinds = {re.match(r"v_mfma|[A-Z]+", op)[0] for op in best if macs_of(op)}
    return "/".join(sorted(kinds)) or "none", macs, best


def _amd(config: Config, text: str, shared: int) -> Figures:
    def figure(key: str) -> int:
        return int(re.search(rf"\.{key}:\s*(\d+)", text)[1])

    labels: dict[str, int] = {}
    ops: list[tuple[str, str]] = []
    for line in text.splitlines():
        if match := re.match(r"(\.L\w+):", line):
            labels[match[1]] = len(ops)
        elif match := re.match(r"\t([a-z]\w+)(.*)", line):
            ops.append((match[1], match[2]))
    loops = []
    for i, (op, operands) in enumerate(ops):
        label = operands.strip().split(" ")[0]
        if op.startswith(("s_cbranch", "s_branch")) and labels.get(label, i + 1) <= i:
            loops.append([o for o, _ in ops[labels[label] : i + 1]])
    mma, macs, body = _main_loop(loops, _amd_macs)
    registers = figure("vgpr_count")
    occupancy = int(re.search(r"; Occupancy: (\d+)", text)[1])
    programs = min(occupancy * 4 // config.warps, DEVICE["gfx942"][0] // max(shared, 1))
    return Figures(
        registers=registers,
        spill_bytes=4 * (figure("vgpr_spill_count") + figure("sgpr_spill_count")),
        shared=shared,
        programs=programs,
        mma=mma,
        efficiency=config.loop_macs / config.warps / macs if macs else 0.0,
        instructions_per_mma=len(body) * HMMA_MACS / macs if macs else float("inf"),
        async_copies=0,
        in_flight=0,
        pdl_wait=text.count("griddepcontrol"),
        pdl_launch=text.count("griddepcontrol"),
    )


def _amd_macs(op: str) -> int:
    """Multiply-adds per wave."""
    match = re.match(r"v_mfma_f32_(\d+)x(\d+)x(\d+)", op)
    return int(match[1]) * int(match[2]) * int(match[3]) if match else 0
