"""Azure's GPU machine types, as data: the table for validation, sizing and node requests.

Types that Azure has retired (K80, P40, P100, M60) are left out. V100 types are kept: existing manifests name them.
Source: KAITO v0.12.0 and v0.3.1. They disagree on ND96amsr_A100_v4 (80 or 640 GiB), which has eight GPUs of 80 GiB.
"""

from collections.abc import Sequence

from kaito_core.api import GpuSku

__all__ = ["SKUS"]

SKUS: Sequence[GpuSku] = (
    # name, GPUs, GPU memory of the machine in GiB, GPU model
    GpuSku("Standard_NC6s_v3", 1, 16, "NVIDIA V100"),
    GpuSku("Standard_NC12s_v3", 2, 32, "NVIDIA V100"),
    GpuSku("Standard_NC24s_v3", 4, 64, "NVIDIA V100"),
    GpuSku("Standard_NC24rs_v3", 4, 64, "NVIDIA V100"),
    GpuSku("Standard_ND40rs_v2", 8, 256, "NVIDIA V100"),
    GpuSku("Standard_NC4as_T4_v3", 1, 16, "NVIDIA T4"),
    GpuSku("Standard_NC8as_T4_v3", 1, 16, "NVIDIA T4"),
    GpuSku("Standard_NC16as_T4_v3", 1, 16, "NVIDIA T4"),
    GpuSku("Standard_NC64as_T4_v3", 4, 64, "NVIDIA T4"),
    # The smaller A10 types have a slice of one GPU.
    GpuSku("Standard_NV6ads_A10_v5", 1, 4, "NVIDIA A10"),
    GpuSku("Standard_NV12ads_A10_v5", 1, 8, "NVIDIA A10"),
    GpuSku("Standard_NV18ads_A10_v5", 1, 12, "NVIDIA A10"),
    GpuSku("Standard_NV36ads_A10_v5", 1, 24, "NVIDIA A10"),
    GpuSku("Standard_NV36adms_A10_v5", 1, 24, "NVIDIA A10"),
    GpuSku("Standard_NV72ads_A10_v5", 2, 48, "NVIDIA A10"),
    GpuSku("Standard_NC24ads_A100_v4", 1, 80, "NVIDIA A100"),
    GpuSku("Standard_NC48ads_A100_v4", 2, 160, "NVIDIA A100"),
    GpuSku("Standard_NC96ads_A100_v4", 4, 320, "NVIDIA A100"),
    GpuSku("Standard_ND96asr_v4", 8, 320, "NVIDIA A100"),
    GpuSku("Standard_ND96asr_A100_v4", 8, 320, "NVIDIA A100"),  # the same machine as KAITO's manifests spell it
    GpuSku("Standard_ND96amsr_A100_v4", 8, 640, "NVIDIA A100"),
    GpuSku("Standard_NC40ads_H100_v5", 1, 94, "NVIDIA H100"),
    GpuSku("Standard_NC80adis_H100_v5", 2, 188, "NVIDIA H100"),
    GpuSku("Standard_NCC40ads_H100_v5", 1, 94, "NVIDIA H100"),
    GpuSku("Standard_ND96isr_H100_v5", 8, 640, "NVIDIA H100"),
    GpuSku("Standard_ND96isr_H200_v5", 8, 1128, "NVIDIA H200"),
    GpuSku("Standard_NG32ads_V620_v1", 1, 32, "AMD Radeon PRO V620", "amd.com/gpu"),
    GpuSku("Standard_NG32adms_V620_v1", 1, 32, "AMD Radeon PRO V620", "amd.com/gpu"),
)
