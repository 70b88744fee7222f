"""What the Triton kernels share: the device they compile for, and the checks of their arguments.

A mismatch is a ValueError that names both sides, before anything is launched. No tensor's content is looked at: that
would make the host wait for the device.
"""

from dataclasses import dataclass
from functools import cache

import torch
import triton
from torch import Tensor

from kaito_runtime.kernels.launch import INT32_ELEMENTS, PAGE, arch_of

__all__ = ["Target", "check_dtype", "check_shape", "current_target", "same_device"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NARROW = (torch.int8, torch.float8_e4m3fn)


@dataclass(frozen=True, slots=True)
class Target:
    """What the kernels are compiled for.

    Attributes:
        arch: Key of the tables in `launch`.
        pdl: Programmatic dependent launch exists (sm_90 and later).
        interpret: Triton's interpreter runs them, on CPU tensors.
    """

    arch: str
    pdl: bool
    interpret: bool


INTERPRETER = Target("sm_90", pdl=False, interpret=True)


def current_target() -> Target:
    """What Triton would launch on now."""
    if triton.knobs.runtime.interpret:
        return INTERPRETER
    return _target_of(triton.runtime.driver.active.get_current_device())


@cache
def _target_of(device: int) -> Target:
    del device  # the key: a process may see several, and asking for the properties at each launch costs microseconds
    found = triton.runtime.driver.active.get_current_target()
    capability = found.arch if isinstance(found.arch, int) else 0
    return Target(arch_of(found.backend, capability), found.backend == "cuda" and capability >= 90, interpret=False)


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], why: str) -> None:
    """Raises ValueError unless `tensor` is contiguous, has shape `expected` and can be indexed with 32 bits."""
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(expected)} ({why})")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {list(tensor.stride())}, expected contiguous {list(expected)}")
    if tensor.numel() >= INT32_ELEMENTS:
        raise ValueError(f"{name} has {tensor.numel()} elements, the kernels index less than {INT32_ELEMENTS}")


def check_dtype(name: str, tensor: Tensor, allowed: tuple[torch.dtype, ...]) -> None:
    """Raises ValueError unless the tensor's dtype is among `allowed`."""
    if tensor.dtype not in allowed:
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected {' or '.join(map(str, allowed))}")


def same_device(**tensors: Tensor | None) -> None:
    """Raises ValueError unless all tensors are on one device."""
    found = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(found))
    for name, device in found.items():
        if device != found[first]:
            raise ValueError(f"{name} is on {device}, {first} on {found[first]}")


def pool_pages(a_pool: Tensor, k: int) -> int:
    """Pages in an A pool `[P*16, K]`."""
    if a_pool.ndim != 2 or a_pool.shape[0] % PAGE:
        raise ValueError(f"a_pool has shape {list(a_pool.shape)}, expected [pages * {PAGE}, {k}]")
    return a_pool.shape[0] // PAGE
