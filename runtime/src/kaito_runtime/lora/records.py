"""Records that the rooms share: what an adapter adds, which version of it is meant, and what strengths a step has.

No torch is imported, so protocols and the HTTP side can use these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "AdaptedLayer",
    "AdapterVersion",
    "AdapterWeights",
    "LoraMatrix",
    "Pool",
    "ResidentAdapter",
    "ScalingTable",
    "Span",
]


@dataclass(frozen=True, slots=True)
class LoraMatrix:
    """What one adapter adds to one linear layer: `scaling * b @ a`.

    Attributes:
        a: `[r, K]`, any rank r >= 1.
        b: `[N, r]`.
        scaling: alpha / r, or alpha / sqrt(r) for rsLoRA. Strength is not in it.
    """

    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """One adapter, checked against one model.

    Attributes:
        name: What requests call it.
        digest: "sha256:..." of `cat adapter_config.json adapter_model.safetensors`.
        matrices: By the path of the linear layer inside the base model, such as "model.layers.0.self_attn.q_proj".
    """

    name: str
    digest: str
    matrices: Mapping[str, LoraMatrix]


@dataclass(frozen=True, eq=False, slots=True)
class AdapterVersion:
    """The identity of one loaded adapter: loading the same folder twice gives two versions."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class ResidentAdapter:
    """One version in the bank.

    Attributes:
        references: Requests that hold it.
        nbytes: Memory of its pages, in bytes; 0 while it is in main memory.
        retired: It is unloaded as soon as `references` is 0.
    """

    version: AdapterVersion
    references: int
    nbytes: int
    retired: bool

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.version.name

    @property
    def digest(self) -> str:
        """The adapter's content digest."""
        return self.version.digest


class ScalingTable:
    """The scaling of each resident version in a layer. Layers with the same scalings share one table.

    In most models all do: every adapter targets every layer with one alpha and one rank. Patterns and partial targets
    make more tables. What a step computes from strengths and scalings, it computes once per table.

    Attributes:
        scaling: By version; versions that do not target the layer are missing.
    """

    __slots__ = ("scaling",)

    def __init__(self, scaling: Mapping[AdapterVersion, float]) -> None:
        self.scaling = scaling


class Pool(Protocol):
    """What the bank needs of a layer's rank pages."""

    def read(self, pages: Sequence[int], rank: int) -> tuple[Tensor, Tensor]:
        """Returns copies of A `[r, K]` and B `[N, r]` in `pages`, in main memory."""

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies what `read` returned into `pages`."""


class AdaptedLayer(Protocol):
    """What the bank needs of a layer.

    Attributes:
        lora_shape: (K, N) of the weight that is here.
        adapter_shape: (K, N) of adapters for it, which is larger where the weight is one rank's part of a layer.
        scalings: Set by the bank whenever a version comes or goes.
    """

    @property
    def pool(self) -> Pool:
        """The layer's rank pages."""

    lora_shape: tuple[int, int]
    adapter_shape: tuple[int, int]
    scalings: ScalingTable

    @property
    def page_bytes(self) -> int:
        """Memory of one rank page in this layer, in bytes."""

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies an adapter's `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros."""


Span = tuple[int, Mapping[AdapterVersion, float]]
"""(tokens, strengths): that many tokens in a row, each with these strengths. Scaling is not in them."""
