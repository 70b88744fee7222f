"""The kernels of paged attention compile for every device and fit into its shared memory."""

import pytest
from compiled import DEVICE, TARGETS, Config, compile_config

from kaito_runtime.kernels.paged_attention import join_kernel, part_kernel

pytestmark = pytest.mark.slow  # a second per binary where Triton's cache is cold

POINTERS = {"query_ptr": "*bf16", "keys_ptr": "*bf16", "values_ptr": "*bf16", "sinks_ptr": "*bf16", "out_ptr": "*bf16"}
INTEGERS = {"table_ptr": "*i64", "lengths_ptr": "*i64"}
RESULTS = {"acc_ptr": "*fp32", "sums_ptr": "*fp32", "scale": "fp32", "softcap": "fp32"}


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize(("heads", "groups", "width"), [(32, 8, 128), (71, 1, 64), (16, 8, 256)])
def test_it_compiles(arch, heads, groups, width):
    shared = {"H": heads, "GROUPS": groups, "D": width, "DV": width, "BLOCK_DV": width, "SPLIT": 8}
    rows = max(16, 1 << (heads // groups - 1).bit_length())
    constants = {**shared, "BLOCK_H": rows, "BLOCK_D": width, "BLOCK_K": 64, "BLOCK_TOKENS": 32}
    part = {**constants, "SOFTCAP": True, "UPCAST": False}
    pointers = {**POINTERS, **INTEGERS, **RESULTS}
    for kernel, given in ((part_kernel, part), (join_kernel, {"H": heads, "DV": width, "SINKS": True})):
        needed = {name: given.get(name, constants.get(name)) for name in kernel.arg_names}
        known = {name: value for name, value in needed.items() if value is not None}
        figures = compile_config(Config(kernel, kernel.fn.__name__, arch, pointers, known, 4, 2, 0, aligned=()))
        assert figures.shared <= DEVICE[arch][1]
