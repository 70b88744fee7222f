"""Checks of the kernels' arguments, which all launchers share.

A mismatch is a ValueError that names both sides, raised before anything is launched. The content of a tensor is never
read: that would make the host wait for the device.
"""

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import INT32_ELEMENTS, PAGE

__all__ = ["FLOATING", "NARROW", "check_dtype", "check_shape", "pool_pages", "same_device"]

FLOATING = (torch.float32, torch.float16, torch.bfloat16)
NARROW = (torch.int8, torch.float8_e4m3fn)


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...], why: str) -> None:
    """Checks that `tensor` is contiguous, has the shape `expected`, and can be indexed with 32 bits.

    Raises:
        ValueError: It is not, has not, or cannot.
    """
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(expected)} ({why})")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} has strides {list(tensor.stride())}, expected contiguous {list(expected)}")
    if tensor.numel() >= INT32_ELEMENTS:
        raise ValueError(f"{name} has {tensor.numel()} elements, the kernels index fewer than {INT32_ELEMENTS}")


def check_dtype(name: str, tensor: Tensor, allowed: tuple[torch.dtype, ...]) -> None:
    """Checks a tensor's dtype.

    Raises:
        ValueError: It is not among `allowed`.
    """
    if tensor.dtype not in allowed:
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected {' or '.join(map(str, allowed))}")


def same_device(**tensors: Tensor | None) -> None:
    """Checks that all tensors are on one device.

    Raises:
        ValueError: They are not.
    """
    found = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    first = next(iter(found))
    for name, device in found.items():
        if device != found[first]:
            raise ValueError(f"{name} is on {device}, but {first} is on {found[first]}")


def pool_pages(a_pool: Tensor, k: int) -> int:
    """Returns the pages in an A pool `[P*16, K]`.

    Raises:
        ValueError: Its rows are not whole pages.
    """
    if a_pool.ndim != 2 or a_pool.shape[0] % PAGE:
        raise ValueError(f"a_pool has shape {list(a_pool.shape)}, expected [pages * {PAGE}, {k}]")
    return a_pool.shape[0] // PAGE
