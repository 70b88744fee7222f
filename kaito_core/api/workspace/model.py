"""The Workspace: what a user writes. Parsing and the rules that need nothing but the document itself.

Rules that need plugins (is the preset known?) live in `reconcile.validate`; the CRD is generated from here by
`api.crd`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from kaito_core.api.adapter import (
    ADAPTER_NAME,
    MAX_ADAPTER_NAME,
    MAX_ADAPTERS,
    AdapterRef,
)
from kaito_core.api.cluster import ResourceType
from kaito_core.api.messages import describe, fault, field_path, shown
from kaito_core.api.preset.from_config import generic_id
from kaito_core.api.strength import DEFAULT_STRENGTH, Strength
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import (
    IMAGE,
    INSTANCE_TYPE,
    OBJECT_NAME,
    OPTIONAL_OBJECT_NAME,
    PRESET_NAME_IN_USE,
    URI,
    URL,
    WORKSPACE_NAME,
)
from kaito_core.api.workspace.freeform import FreeForm, PodTemplate
from kaito_core.api.workspace.selector import LabelSelector
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = [
    "GROUP",
    "MAX_BLENDS",
    "MAX_COUNT",
    "PROVIDER_ANNOTATION",
    "VERSIONS",
    "WORKSPACES",
    "Adapter",
    "AdapterOrigin",
    "Blend",
    "Inference",
    "LabelSelector",
    "Preset",
    "PresetOptions",
    "Resource",
    "Workspace",
    "parse_workspace",
]

GROUP = "kaito.sh"
VERSIONS = ("v1alpha1", "v1beta1")  # one schema; the last one is stored
WORKSPACES = ResourceType(GROUP, VERSIONS[-1], "workspaces", "Workspace")
PROVIDER_ANNOTATION = "kaito.sh/node-provider"

MAX_BLENDS = 64
MAX_COUNT = 1000
MAX_SECRETS = 32
MAX_URLS = 100

#: Ids that the runtime serves besides adapters and blends.
RESERVED_MODEL_IDS = ("base",)


def _model_id(name: str) -> str:
    if ADAPTER_NAME.fullmatch(name) is None:
        raise fault(
            "must be lower-case letters, digits and '-', begin and end with a letter or digit and have at most 55 "
            f"characters, got {shown(name)}"
        )
    if name in RESERVED_MODEL_IDS:
        raise fault(f"must not be '{name}', which is the model id of the raw model")
    return name


ModelId = Annotated[
    str,
    AfterValidator(_model_id),
    WithJsonSchema({"type": "string", "pattern": f"^{ADAPTER_NAME.pattern}$", "maxLength": MAX_ADAPTER_NAME}),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
Secrets = tuple[Annotated[str, OBJECT_NAME], ...]
#: A volume's kind and its fields; which kinds there are is for Kubernetes to say.
VolumeSource = Annotated[
    FreeForm,
    Field(min_length=1, max_length=1),
    WithJsonSchema({"type": "object", "minProperties": 1, "maxProperties": 1}),
]


class Resource(Document):
    """The nodes.

    Attributes:
        count: Replicas; for a distributed preset the nodes that share one model.
        instance_type: Machine type of the cloud, or of prepared nodes.
        label_selector: Labels that nodes must have.
        preferred_nodes: Prepared nodes to use; without a label selector, only these.
    """

    count: int = Field(default=1, ge=1, le=MAX_COUNT, strict=True)
    instance_type: Annotated[str, INSTANCE_TYPE] = ""
    label_selector: LabelSelector = LabelSelector()
    preferred_nodes: tuple[Annotated[str, OBJECT_NAME], ...] = Field(default=(), max_length=MAX_COUNT)


class PresetOptions(Document):
    """How a preset differs for this Workspace.

    Attributes:
        image: The user's own image with the weights in /workspace/tfs/weights.
        image_pull_secrets: Secrets to pull it with.
        model_access_secret: Secret whose key HF_TOKEN opens a gated model.
    """

    image: Annotated[str, IMAGE] = ""
    image_pull_secrets: Secrets = Field(default=(), max_length=MAX_SECRETS)
    model_access_secret: Annotated[str, OPTIONAL_OBJECT_NAME] = ""


class Preset(Document):
    """The model, by the name of an installed preset."""

    name: Annotated[str, PRESET_NAME_IN_USE]
    access_mode: Literal["public", "private"] = "public"
    preset_options: PresetOptions = PresetOptions()


class AdapterOrigin(Document):
    """Where an adapter comes from: exactly one of image, urls, uri and volumeSource."""

    name: ModelId
    image: Annotated[str, IMAGE] = ""
    image_pull_secrets: Secrets = Field(default=(), max_length=MAX_SECRETS)
    urls: tuple[Annotated[str, URL], ...] = Field(default=(), max_length=MAX_URLS)
    uri: Annotated[str, URI] = ""
    volume_source: VolumeSource | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [
            name
            for name, value in (
                ("image", self.image),
                ("urls", self.urls),
                ("uri", self.uri),
                ("volumeSource", self.volume_source),
            )
            if value
        ]
        if len(given) != 1:
            raise fault(
                f"must have exactly one of image, urls, uri and volumeSource, got {' and '.join(given) or 'none'}"
            )
        return self


class Adapter(Document):
    """One LoRA adapter.

    Attributes:
        strength: Multiplier of alpha/rank * B A; any finite number up to 10 in magnitude.
        digest: What the adapter's files must hash to; anything else is refused.
    """

    source: AdapterOrigin
    strength: Strength = DEFAULT_STRENGTH
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """The adapter's name, which is its model id too."""
        return self.source.name

    def ref(self, field: str, access_secret: str = "") -> AdapterRef:
        """Returns where the adapter comes from.

        Args:
            field: Path of the adapter in its Workspace, such as "inference.adapters[1]", for messages.
            access_secret: Name of the Secret that opens private repositories, "" for none.
        """
        origin = self.source
        if origin.image:
            scheme, location, name = "image", origin.image, "image"
        elif origin.volume_source:
            scheme, location, name = "volume", "", "volumeSource"
        elif origin.uri:
            scheme, location, name = origin.uri.partition(":")[0].lower(), origin.uri, "uri"
        else:
            scheme, location, name = origin.urls[0].partition(":")[0].lower(), " ".join(origin.urls), "urls[0]"
        return AdapterRef(
            name=self.name,
            scheme=scheme,
            location=location,
            field=f"{field}.source.{name}",
            digest=self.digest,
            pull_secrets=origin.image_pull_secrets,
            volume=origin.volume_source,
            access_secret=access_secret,
        )


class Blend(Document):
    """A named set of adapter strengths, served as a model id of its own."""

    name: ModelId
    strengths: dict[str, Strength] = Field(min_length=1, max_length=MAX_ADAPTERS)


class Inference(Document):
    """What is served: a preset with adapters, or the user's own pod template."""

    preset: Preset | None = None
    template: PodTemplate | None = None
    adapters: tuple[Adapter, ...] = Field(default=(), max_length=MAX_ADAPTERS)
    blends: tuple[Blend, ...] = Field(default=(), max_length=MAX_BLENDS)
    config: Annotated[str, OPTIONAL_OBJECT_NAME] = ""

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.preset is None and self.template is None:
            raise fault("must have a preset or a template, got neither")
        if self.preset is not None and self.template is not None:
            raise fault("must have a preset or a template, got both")
        if self.template is not None and (self.adapters or self.blends):
            raise fault("must have no adapters and no blends beside a template: only presets apply adapters")
        return self


class _Metadata(Document):
    model_config = ConfigDict(extra="ignore")  # the API server adds fields of its own

    name: Annotated[str, WORKSPACE_NAME]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


class Workspace(Document):
    """A served model on Kubernetes. There is no `spec`: the fields stand at the top, as upstream has them."""

    api_version: str
    kind: Literal["Workspace"]
    metadata: _Metadata
    resource: Resource = Resource()
    inference: Inference
    status: FreeForm = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """metadata.name."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """metadata.namespace."""
        return self.metadata.namespace

    @property
    def generation(self) -> int:
        """metadata.generation."""
        return self.metadata.generation


def _cross_checks(workspace: Workspace) -> list[FieldError]:
    """Returns the faults that concern two entries of a list, each at the later one."""
    errors: list[FieldError] = []
    preset = workspace.inference.preset
    if preset is not None and preset.access_mode == "private" and not preset.preset_options.image:
        errors.append(
            FieldError(
                "inference.preset.presetOptions.image",
                "is required where accessMode is private: your image with the weights in /workspace/tfs/weights",
            )
        )
    taken = {generic_id(preset.name): "inference.preset.name"} if preset is not None else {}
    adapters = [
        (f"inference.adapters[{i}].source.name", adapter.name) for i, adapter in enumerate(workspace.inference.adapters)
    ]
    blends = [(f"inference.blends[{i}].name", blend.name) for i, blend in enumerate(workspace.inference.blends)]
    for field, name in [*adapters, *blends]:
        if name in taken:
            errors.append(FieldError(field, f"must be unique, '{name}' is also {taken[name]}"))
        taken.setdefault(name, field)
    known = [name for _, name in adapters]
    for index, blend in enumerate(workspace.inference.blends):
        for name in blend.strengths:
            if name not in known:
                have = ", ".join(known) or "none"
                errors.append(
                    FieldError(
                        field_path(("inference", "blends", index, "strengths", name)),
                        f"must name an adapter of this Workspace (they are: {have})",
                    )
                )
    return errors


def parse_workspace(document: object) -> Workspace:
    """Returns the Workspace that a document stands for.

    Args:
        document: What a YAML or JSON parser returned.

    Raises:
        InvalidWorkspaceError: With one FieldError for each fault that can be told.
    """
    if not isinstance(document, Mapping):
        raise InvalidWorkspaceError([FieldError("", f"a Workspace must be a mapping, got {shown(document)}")])
    known = [f"{GROUP}/{version}" for version in VERSIONS]
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if api_version not in known or kind != "Workspace":
        got = f"{shown(api_version)} and {shown(kind)}"
        raise InvalidWorkspaceError(
            [FieldError("apiVersion", f"and kind must be {' or '.join(known)} and Workspace, got {got}")]
        )
    if document.get("tuning") is not None:
        raise InvalidWorkspaceError([FieldError("tuning", "is not supported: this operator serves models")])
    try:
        workspace = Workspace.model_validate(dict(document))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise InvalidWorkspaceError(
            [FieldError(field_path(found["loc"]), describe(found)) for found in faults]
        ) from error
    if errors := _cross_checks(workspace):
        raise InvalidWorkspaceError(errors)
    return workspace
