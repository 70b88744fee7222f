"""The Qwen presets, as data: Qwen 2.5 Coder, DeepSeek R1 distilled into the same architecture, and Qwen 3."""

from typing import Any

from kaito_core.api import ModelPreset, Weights

__all__ = ["PRESETS"]

_CATALOG = "KAITO v0.12.0, model catalogue"
_SOURCES = {
    "weights.revision": "KAITO, presets/workspace/models/supported_models.yaml",
    "weights.size_gib": _CATALOG,
    "gpus": "one GPU; the operator uses more if they have less than gpu_memory_gib",
    "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens, as KAITO v0.12.0 computes it",
    "memory_gib": "estimate: one 10 GB shard in main memory while loading, and 6 GiB for Python and the GPU driver",
    "disk_gib": _CATALOG,
    "context_length": _CATALOG,
    "heads": _CATALOG,
    "kv_bytes_per_token": "KAITO v0.12.0, model catalogue: 2 * key-value heads * head width * layers * 2 bytes",
    "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
}


def _preset(repository: str, revision: str, *, size_gib: float, **numbers: Any) -> ModelPreset:
    return ModelPreset(
        name=repository.partition("/")[2].lower(),
        family="qwen2.5",
        architecture="Qwen2ForCausalLM",
        weights=Weights(repository=repository, revision=revision, size_gib=size_gib),
        gpus=1,
        memory_gib=16,
        sources=_SOURCES,
        **numbers,
    )


def _qwen3(repository: str, revision: str, *, size_gib: float, **numbers: Any) -> ModelPreset:
    return ModelPreset(
        name=repository.partition("/")[2].lower(),
        family="qwen3",
        architecture="Qwen3ForCausalLM",
        weights=Weights(repository=repository, revision=revision, size_gib=size_gib),
        gpus=1,
        memory_gib=16,
        license="Apache-2.0",
        sources=_SOURCES
        | {
            "weights.revision": "commit named by public projects that pin this repository; not checked against the hub",
            "weights.size_gib": "config.json: the parameters, 2 bytes each",
            "disk_gib": "weights and 80 GiB, as KAITO v0.12.0 computes it",
            "context_length": "config.json: max_position_embeddings; the catalogue's Qwen3-8B-AWQ has the same",
            "heads": "config.json; the catalogue's Qwen3-8B-AWQ has the same",
        },
        **numbers,
    )


PRESETS = (
    _preset(
        "Qwen/Qwen2.5-Coder-7B-Instruct",
        "c03e6d358207e414f1eca0bb1891e29f1db0e242",
        size_gib=14.19,
        gpu_memory_gib=17,
        disk_gib=94,
        context_length=32768,
        heads=4,
        kv_bytes_per_token=57344,
        license="Apache-2.0",
    ),
    _preset(
        "Qwen/Qwen2.5-Coder-32B-Instruct",
        "381fc969f78efac66bc87ff7ddeadb7e73c218a7",
        size_gib=61.03,
        gpu_memory_gib=66,
        disk_gib=141,
        context_length=32768,
        heads=8,
        kv_bytes_per_token=262144,
        startup_seconds=2000,
        license="Apache-2.0",
    ),
    _preset(
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
        "1df8507178afcc1bef68cd8c393f61a886323761",
        size_gib=27.51,
        gpu_memory_gib=31,
        disk_gib=107,
        context_length=131072,
        heads=8,
        kv_bytes_per_token=196608,
        license="MIT",
    ),
    _qwen3(
        "Qwen/Qwen3-8B",
        "b968826d9c46dd6066d109eabc6255188de91218",
        size_gib=15.26,
        gpu_memory_gib=19,
        disk_gib=95,
        context_length=40960,
        heads=8,
        kv_bytes_per_token=147456,
    ),
)
