"""Whether the device that a rank computes on still works."""

import torch

from kaito_runtime.errors import one_line

__all__ = ["why_lost"]


def why_lost(device: torch.device) -> str:
    """Returns why a device can compute nothing until the process is restarted; "" if it works.

    After an illegal address, a failed assertion or an uncorrectable memory error, every call to a GPU fails with the
    same error until the process ends. So any call will do; this one does not wait for the GPU. Other errors pass: a GPU
    whose memory is full still works.

    Source: https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html (cudaErrorIllegalAddress).
    """
    if device.type != "cuda":
        return ""
    try:
        torch.cuda.current_stream(device).query()
    except Exception as error:  # torch.AcceleratorError; before torch 2.8 a RuntimeError
        return one_line(error)
    return ""
