"""ServingConfig: the file that the operator writes and the runtime reads, and reads again whenever it changes.

It holds what can change without a new pod; paths, ports and images are in the pod template.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from kaito_core.api.docstrings import describe
from kaito_core.api.preset.quantization import Quantization
from kaito_core.api.quantity import MEMORY_SIZE
from kaito_core.api.strength import DEFAULT_STRENGTH, Strength

__all__ = [
    "ADAPTERS_PATH",
    "CONFIG_FILE",
    "CONFIG_PATH",
    "KEPT_PATH",
    "PORT",
    "SERVING_KEY",
    "WEIGHTS_PATH",
    "ServedAdapter",
    "ServedBlend",
    "ServedLimits",
    "ServedModel",
    "ServingConfig",
]

PORT = 5000  # upstream's
ADAPTERS_PATH = "/mnt/adapter"  # upstream's; one folder per adapter
WEIGHTS_PATH = "/workspace/weights"
KEPT_PATH = "/workspace/kept-weights"  # where the step that fetches weights sees a volume that keeps them
CONFIG_PATH = "/etc/kaito/serving"
SERVING_KEY = "serving.json"
CONFIG_FILE = f"{CONFIG_PATH}/{SERVING_KEY}"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        protected_namespaces=(),
        json_schema_extra=describe,
    )


class ServedModel(_Record):
    """The base model.

    Attributes:
        name: Model id that applies every adapter at its declared strength; the raw model is served as "base".
        recipe: Name of the runtime recipe, "default" for what transformers loads as it is.
        dtype: "auto" or a torch dtype; CPUs without bfloat16 arithmetic compute in float32 whatever it says.
        quantization: How the server quantises the weights while it loads them; "auto": as the files have them.
        context_length: Longest sequence of prompt and answer in tokens, or None for what the weights say.
        adapter_memory: Size of the adapter pools, such as "2Gi", on each GPU; None: what fits beside the cache.
        max_adapter_rank: Adapters of a larger rank are refused; None: those that the pools cannot hold.
    """

    name: str = Field(min_length=1)
    recipe: str = "default"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    quantization: Quantization = "auto"
    context_length: int | None = Field(default=None, gt=0)
    adapter_memory: str | None = Field(default=None, pattern=MEMORY_SIZE)
    max_adapter_rank: int | None = Field(default=None, gt=0)


class ServedAdapter(_Record):
    """One adapter.

    Attributes:
        name: Model id that applies this adapter alone, at its declared strength.
        strength: Multiplier of alpha/rank * B A, used wherever a request gives no other.
        digest: "sha256:..." that the files must have, or None.
        path: Folder of the files, relative to the adapters folder; None: the adapter's name. The operator puts the
            revision of the reference into it, so that a replaced adapter never shares a folder with the one before.
    """

    name: str = Field(min_length=1)
    strength: Strength = DEFAULT_STRENGTH
    digest: str | None = None
    path: str | None = None

    @classmethod
    def checked(cls, *, name: str, strength: float, digest: str | None, path: str) -> Self:
        """Returns the record of an adapter in a parsed Workspace; what was checked there is not checked again."""
        return cls.model_construct(name=name, strength=strength, digest=digest, path=path)


class ServedBlend(_Record):
    """A named set of adapter strengths, served as a model id.

    Attributes:
        name: Model id of the blend.
        strengths: Strength of each adapter in the blend, by the adapter's name.
    """

    name: str = Field(min_length=1)
    strengths: dict[str, Strength]

    @classmethod
    def checked(cls, *, name: str, strengths: Mapping[str, float]) -> Self:
        """Returns the record of a blend in a parsed Workspace; what was checked there is not checked again."""
        return cls.model_construct(name=name, strengths=dict(strengths))


class ServedLimits(_Record):
    """Limits that a running server takes up; what is None is as its command line says.

    Attributes:
        request_seconds: Time limit of a request, waiting included.
    """

    request_seconds: float | None = Field(default=None, ge=1)


class ServingConfig(_Record):
    """What one pod serves.

    Attributes:
        schema_version: Version of this schema.
        generation: Generation of the Workspace that it was made from; replicas report it to the operator.
        model: The base model.
        adapters: The adapters, in the Workspace's order.
        blends: The blends.
        limits: Limits of requests.
    """

    schema_version: Literal[1] = 1
    generation: int = Field(default=0, ge=0)
    model: ServedModel
    adapters: tuple[ServedAdapter, ...] = ()
    blends: tuple[ServedBlend, ...] = ()
    limits: ServedLimits | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        adapters = [adapter.name for adapter in self.adapters]
        ids = [self.model.name, "base", *adapters, *(blend.name for blend in self.blends)]
        if duplicates := [name for name in dict.fromkeys(ids) if ids.count(name) > 1]:
            raise ValueError(f"duplicate model ids: {', '.join(duplicates)}")
        for blend in self.blends:
            if unknown := sorted(set(blend.strengths) - set(adapters)):
                raise ValueError(f"blend '{blend.name}' names unknown adapters: {', '.join(unknown)}")
        return self

    def to_json(self) -> str:
        """Returns the file's text; equal configurations give equal bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
