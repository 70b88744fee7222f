"""Records that the LoRA rooms share: what an adapter adds, and which version of it is meant. No torch is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AdapterVersion", "AdapterWeights", "LoraMatrix", "Profile", "ResidentAdapter", "Span"]


@dataclass(frozen=True, slots=True)
class LoraMatrix:
    """What one adapter adds to one linear layer: `scaling * b @ a`.

    Attributes:
        a: `[r, K]`, any rank r >= 1.
        b: `[N, r]`.
        scaling: alpha / r, or alpha / sqrt(r) for rsLoRA; strength is not in it.
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
    """The identity of one loaded adapter: two loads of the same folder are two versions."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class ResidentAdapter:
    """What `Bank.resident` tells about one version.

    Attributes:
        references: Requests that hold it.
        nbytes: Memory of its pages, in bytes.
        retired: It is going as soon as `references` is 0.
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


class Profile:
    """The scaling of each resident version in a layer, shared by all layers where it is the same.

    Most models have one profile: every adapter targets every layer with one alpha and one rank. Patterns and partial
    targets make more. A step's table is computed once per profile.
    """

    __slots__ = ("scaling",)

    def __init__(self, scaling: Mapping[AdapterVersion, float]) -> None:
        self.scaling = scaling


Span = tuple[int, Mapping[AdapterVersion, float]]
"""(tokens, strengths): so many tokens in a row, each with these strengths. Scaling is not in them."""
