"""Device: whether what a rank computes on still works."""

import torch

from kaito_runtime.errors import one_line

__all__ = ["why_lost"]


def why_lost(device: torch.device) -> str:
    """Returns why nothing can be computed on a device before the process is started anew, or "".

    After an illegal address, a failed assertion or memory that cannot be corrected, every call to a GPU fails with the
    same error until the process ends. So any call tells; this one waits for nothing. Other errors pass, and a GPU that
    has no room left still works.

    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (cudaErrorIllegalAddress).
    """
    if device.type != "cuda":
        return ""
    try:
        torch.cuda.current_stream(device).query()
    except Exception as error:  # torch.AcceleratorError; before torch 2.8 a RuntimeError
        return one_line(error)
    return ""
