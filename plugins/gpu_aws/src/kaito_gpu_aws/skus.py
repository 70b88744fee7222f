"""AWS's GPU machine types, as data.

Left out are GPUs that current CUDA releases do not support (K80, M60), ARM machines (g5g), for which we build no image,
and accelerators that pods do not request as `nvidia.com/gpu` (Radeon, Trainium, Inferentia).
Source: KAITO v0.12.0, and v0.3.1 for the types that v0.12.0 has dropped; they agree on the types that both have.
"""

from collections.abc import Sequence

from kaito_core.api import GpuSku

__all__ = ["SKUS"]

SKUS: Sequence[GpuSku] = (
    # name, GPUs, GPU memory of the machine in GiB, GPU model
    GpuSku("p3.2xlarge", 1, 16, "NVIDIA V100"),
    GpuSku("p3.8xlarge", 4, 64, "NVIDIA V100"),
    GpuSku("p3.16xlarge", 8, 128, "NVIDIA V100"),
    GpuSku("p3dn.24xlarge", 8, 256, "NVIDIA V100"),
    GpuSku("g4dn.16xlarge", 1, 16, "NVIDIA T4"),
    GpuSku("g4dn.2xlarge", 1, 16, "NVIDIA T4"),
    GpuSku("g4dn.4xlarge", 1, 16, "NVIDIA T4"),
    GpuSku("g4dn.8xlarge", 1, 16, "NVIDIA T4"),
    GpuSku("g4dn.xlarge", 1, 16, "NVIDIA T4"),
    GpuSku("g4dn.12xlarge", 4, 64, "NVIDIA T4"),
    GpuSku("g4dn.metal", 8, 128, "NVIDIA T4"),
    GpuSku("g5.16xlarge", 1, 24, "NVIDIA A10G"),
    GpuSku("g5.2xlarge", 1, 24, "NVIDIA A10G"),
    GpuSku("g5.4xlarge", 1, 24, "NVIDIA A10G"),
    GpuSku("g5.8xlarge", 1, 24, "NVIDIA A10G"),
    GpuSku("g5.xlarge", 1, 24, "NVIDIA A10G"),
    GpuSku("g5.12xlarge", 4, 96, "NVIDIA A10G"),
    GpuSku("g5.24xlarge", 4, 96, "NVIDIA A10G"),
    GpuSku("g5.48xlarge", 8, 192, "NVIDIA A10G"),
    GpuSku("g6.16xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("g6.2xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("g6.4xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("g6.8xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("g6.xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("g6.12xlarge", 4, 96, "NVIDIA L4"),
    GpuSku("g6.24xlarge", 4, 96, "NVIDIA L4"),
    GpuSku("g6.48xlarge", 8, 192, "NVIDIA L4"),
    GpuSku("gr6.4xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("gr6.8xlarge", 1, 24, "NVIDIA L4"),
    GpuSku("p4d.24xlarge", 8, 320, "NVIDIA A100"),
    GpuSku("p4de.24xlarge", 8, 640, "NVIDIA A100"),
    GpuSku("p5.48xlarge", 8, 640, "NVIDIA H100"),
    GpuSku("p5e.48xlarge", 8, 1128, "NVIDIA H200"),
    GpuSku("p5en.48xlarge", 8, 1128, "NVIDIA H200"),
)
