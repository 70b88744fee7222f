"""ServingConfig: the one file that the operator writes and the runtime reads, and re-reads when it changes.

It holds what can change without a new pod. Paths, ports and images are the pod template's business.
"""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from kaito_core.api.strength import DEFAULT_STRENGTH, Strength

__all__ = [
    "ADAPTERS_PATH",
    "CONFIG_FILE",
    "CONFIG_PATH",
    "PORT",
    "SERVING_KEY",
    "WEIGHTS_PATH",
    "ServedAdapter",
    "ServedBlend",
    "ServedModel",
    "ServingConfig",
]

PORT = 5000  # upstream's
ADAPTERS_PATH = "/mnt/adapter"  # upstream's; one folder per adapter
WEIGHTS_PATH = "/workspace/weights"
CONFIG_PATH = "/etc/kaito/serving"
SERVING_KEY = "serving.json"
CONFIG_FILE = f"{CONFIG_PATH}/{SERVING_KEY}"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, protected_namespaces=()
    )


class ServedModel(_Record):
    """The base model.

    Attributes:
        name: Model id of the Workspace's own mix; the raw model is served as "base".
        recipe: Name of the runtime recipe, "default" for what transformers loads as it is.
        dtype: "auto" or a torch dtype; CPUs without bfloat16 arithmetic compute in float32 whatever it says.
        context_length: Longest sequence in tokens, or None for what the weights say.
    """

    name: str = Field(min_length=1)
    recipe: str = "default"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    context_length: int | None = Field(default=None, gt=0)


class ServedAdapter(_Record):
    """One adapter.

    Attributes:
        strength: Multiplier of alpha/rank * B A, used wherever a request names no other.
        digest: "sha256:..." that the files must have, or None.
        path: Folder of the files, relative to the adapters folder; None: the adapter's name. The operator names the
            reference's revision in it, so that a replaced adapter never shares a folder with the one before.
    """

    name: str = Field(min_length=1)
    strength: Strength = DEFAULT_STRENGTH
    digest: str | None = None
    path: str | None = None

    @classmethod
    def checked(cls, *, name: str, strength: float, digest: str | None, path: str) -> Self:
        """Returns the record of an adapter of a parsed Workspace, whose values were checked then and are not again."""
        return cls.model_construct(name=name, strength=strength, digest=digest, path=path)


class ServedBlend(_Record):
    """A named set of adapter strengths, served as a model id."""

    name: str = Field(min_length=1)
    strengths: dict[str, Strength]

    @classmethod
    def checked(cls, *, name: str, strengths: Mapping[str, float]) -> Self:
        """Returns the record of a blend of a parsed Workspace, whose values were checked then and are not again."""
        return cls.model_construct(name=name, strengths=dict(strengths))


def _unique(names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if names.count(name) > 1]


class ServingConfig(_Record):
    """What one pod serves.

    Attributes:
        generation: Generation of the Workspace that it was planned from; read back by the operator.
    """

    schema_version: Literal[1] = 1
    generation: int = Field(default=0, ge=0)
    model: ServedModel
    adapters: tuple[ServedAdapter, ...] = ()
    blends: tuple[ServedBlend, ...] = ()

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        adapters = [adapter.name for adapter in self.adapters]
        ids = [self.model.name, "base", *adapters, *(blend.name for blend in self.blends)]
        if twice := _unique(ids):
            raise ValueError(f"model ids must be unique, used twice: {', '.join(twice)}")
        for blend in self.blends:
            if unknown := sorted(set(blend.strengths) - set(adapters)):
                raise ValueError(f"blend '{blend.name}' names unknown adapters: {', '.join(unknown)}")
        return self

    def to_json(self) -> str:
        """Returns the file's text; equal configurations give equal bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
