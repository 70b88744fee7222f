"""Adapters and blends, as a Workspace writes them."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from kaito_core.api.adapter import ADAPTER_NAME, MAX_ADAPTER_NAME, MAX_ADAPTERS, AdapterRef
from kaito_core.api.messages import fault, shown
from kaito_core.api.strength import DEFAULT_STRENGTH, Strength
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import IMAGE, OBJECT_NAME, OPTIONAL_OBJECT_NAME, URI, URL
from kaito_core.api.workspace.freeform import FreeForm

__all__ = ["MAX_SECRETS", "MAX_URLS", "Adapter", "AdapterOrigin", "Blend", "Secrets"]

MAX_SECRETS = 32
MAX_URLS = 100

#: Ids that the runtime serves besides adapters and blends.
_RESERVED_MODEL_IDS = ("base",)


def _model_id(name: str) -> str:
    if ADAPTER_NAME.fullmatch(name) is None:
        raise fault(
            "must be lower-case letters, digits and '-', begin and end with a letter or digit and have at most 55 "
            f"characters, got {shown(name)}"
        )
    if name in _RESERVED_MODEL_IDS:
        raise fault(f"must not be '{name}', which is the model id of the raw model")
    return name


ModelId = Annotated[
    str,
    AfterValidator(_model_id),
    WithJsonSchema({"type": "string", "pattern": f"^{ADAPTER_NAME.pattern}$", "maxLength": MAX_ADAPTER_NAME}),
]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
#: Names of image pull secrets.
Secrets = Annotated[tuple[Annotated[str, OBJECT_NAME], ...], Field(max_length=MAX_SECRETS)]
#: A volume's kind and its fields; Kubernetes knows which kinds there are.
VolumeSource = Annotated[
    FreeForm,
    Field(min_length=1, max_length=1),
    WithJsonSchema({"type": "object", "minProperties": 1, "maxProperties": 1}),
]


class AdapterOrigin(Document):
    """Where an adapter comes from: exactly one of image, urls, uri and volumeSource.

    Attributes:
        name: The adapter's name, which is its model id too; unique among adapters, blends and the preset.
        image: Container image with the adapter's files in /data.
        image_pull_secrets: Names of Secrets to pull the image with.
        urls: URLs of one archive, or of the adapter's files.
        uri: Reference of the form scheme://..., read by the adapter source that is installed for the scheme.
        volume_source: Volume with the adapter's files, as in a pod's spec.volumes.
        secret_name: Name of a Secret with the credentials of this adapter; which keys are read depends on the source.
    """

    name: ModelId
    image: Annotated[str, IMAGE] = ""
    image_pull_secrets: Secrets = ()
    urls: tuple[Annotated[str, URL], ...] = Field(default=(), max_length=MAX_URLS)
    uri: Annotated[str, URI] = ""
    volume_source: VolumeSource | None = None
    secret_name: Annotated[str, OPTIONAL_OBJECT_NAME] = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        origins = {"image": self.image, "urls": self.urls, "uri": self.uri, "volumeSource": self.volume_source}
        given = [name for name, value in origins.items() if value]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise fault(f"must have exactly one of image, urls, uri and volumeSource, got {got}")
        return self


class Adapter(Document):
    """One LoRA adapter.

    Attributes:
        source: Where the adapter comes from.
        strength: Multiplier of the adapter's effect: a number, or a number in a string, from -10 to 10; 0 is the base
            model, 1 the adapter as it was trained.
        digest: What the adapter's files must hash to, "sha256:..."; files with another digest are refused.
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
            secret=origin.secret_name,
        )


class Blend(Document):
    """A named set of adapter strengths, served as a model id of its own.

    Attributes:
        name: The blend's model id; unique among adapters, blends and the preset.
        strengths: Strength of each adapter in the blend, by the adapter's name.
    """

    name: ModelId
    strengths: dict[str, Strength] = Field(min_length=1, max_length=MAX_ADAPTERS)
