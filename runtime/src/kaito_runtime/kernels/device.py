"""The device that the Triton kernels compile for: a GPU, or Triton's interpreter on CPU tensors."""

from dataclasses import dataclass
from functools import cache

import triton

from kaito_runtime.kernels.launch import arch_of

__all__ = ["Target", "current_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """What the kernels are compiled for.

    Attributes:
        arch: Key of the tables in `launch`.
        pdl: Programmatic dependent launch exists (sm_90 and later).
        interpret: Triton's interpreter runs the kernels, on CPU tensors.
    """

    arch: str
    pdl: bool
    interpret: bool


INTERPRETER = Target("sm_90", pdl=False, interpret=True)


def current_target() -> Target:
    """Returns what Triton would launch on now."""
    if triton.knobs.runtime.interpret:
        return INTERPRETER
    return _target_of(triton.runtime.driver.active.get_current_device())


@cache
def _target_of(device: int) -> Target:
    del device  # the key: a process may see several, and asking for the properties at each launch costs microseconds
    found = triton.runtime.driver.active.get_current_target()
    capability = found.arch if isinstance(found.arch, int) else 0
    return Target(arch_of(found.backend, capability), found.backend == "cuda" and capability >= 90, interpret=False)
