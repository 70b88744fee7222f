"""The error tree of the operator and its plugins: the class tells the caller what to do, the message the user.

The runtime has a tree of its own (`kaito_runtime.errors`); nothing here knows about HTTP or the command line.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "AdapterSpecError",
    "BackendError",
    "CapacityError",
    "ClusterError",
    "ConfigError",
    "DoesNotFitError",
    "FetchError",
    "FieldError",
    "InvalidClaimError",
    "InvalidConfigError",
    "InvalidWorkspaceError",
    "KaitoError",
    "NamedObjectError",
    "NotReadyError",
    "PluginConflictError",
    "PluginError",
    "PluginFailedError",
    "PluginLoadError",
    "ProviderError",
    "TransientFetchError",
    "UnknownHookError",
    "UnknownInstanceTypeError",
    "UnknownPresetError",
    "UnknownProviderError",
    "UnknownSourceError",
    "WorkspaceError",
    "known_names",
]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of one field of a document.

    Attributes:
        field: Path inside the document, such as "inference.adapters[1].strength".
        message: What is wrong, with the value, and what would be right; follows the field's name.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}" if self.field else self.message


def known_names(names: Iterable[str], wanted: str = "") -> str:
    """Returns the tail of a message about an unknown name: "did you mean a?", "known: a, b", or "none is installed".

    Args:
        names: The names that exist.
        wanted: The unknown name. If it looks like a typing error, the closest name is returned instead of all, which
            may be dozens.
    """
    ordered = sorted(names)
    if close := difflib.get_close_matches(wanted, ordered, n=1):
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(ordered)}" if ordered else "none is installed"


class KaitoError(Exception):
    """Base of all errors that kaito raises on purpose."""


class ConfigError(KaitoError):
    """Settings or files of this process cannot be used: print the message and exit."""


class FetchError(KaitoError):
    """Files cannot be fetched; the message names the source without its secrets, and the cause. Nothing is left."""


class TransientFetchError(FetchError):
    """Files cannot be fetched now: the same fetch may succeed later, and goes on where this one ended.

    Attributes:
        retry_after_seconds: How long the source asks to wait, 0 where it does not say.
    """

    retry_after_seconds = 0.0


class WorkspaceError(KaitoError):
    """The user must edit the Workspace. Condition False, one warning event, no retry until its generation changes.

    Attributes:
        errors: The faults, at least one.
        reason: CamelCase category for the condition.
    """

    reason = "InvalidWorkspace"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(str(error) for error in errors))
        self.errors = tuple(errors)


class InvalidWorkspaceError(WorkspaceError):
    """Fields are missing, malformed or contradict one another."""


class NamedObjectError(InvalidWorkspaceError):
    """An object that the Workspace names cannot be used: that one or the Workspace must be edited; it is read again.

    Attributes:
        advice: What to do.
    """

    advice = "edit it or the Workspace"


class InvalidClaimError(NamedObjectError):
    """The PersistentVolumeClaim that `inference.weights` names cannot keep the weights."""

    reason = "InvalidClaim"


class InvalidConfigError(NamedObjectError):
    """The ConfigMap that `inference.config` names cannot be used: somebody must edit it, and it is read again."""

    reason = "InvalidConfig"
    advice = "edit the ConfigMap"


class UnknownPresetError(WorkspaceError):
    """No installed plugin brings the preset."""

    reason = "UnknownPreset"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        message = f"'{name}' is not an installed preset ({known_names(known, name)}); install the plugin that brings it"
        super().__init__([FieldError("inference.preset.name", message)])


class UnknownProviderError(WorkspaceError):
    """No installed node provider has the name, or, without a name, none serves the Workspace."""

    reason = "UnknownNodeProvider"

    def __init__(
        self, name: str, known: Iterable[str], field: str = "metadata.annotations[kaito.sh/node-provider]"
    ) -> None:
        what = f"'{name}' is not an installed node provider" if name else "is served by no installed node provider"
        super().__init__([FieldError(field, f"{what} ({known_names(known, name)})")])


class UnknownInstanceTypeError(WorkspaceError):
    """No installed node provider makes the machine type, and no node has it."""

    reason = "UnknownInstanceType"

    def __init__(self, instance_type: str, providers: Iterable[str], known: Iterable[str]) -> None:
        names = {name.casefold(): name for name in known}
        close = [names[name] for name in difflib.get_close_matches(instance_type.casefold(), names)]
        nearest = f"; nearest known types: {', '.join(close)}" if close else ""
        message = (
            f"'{instance_type}' is not a machine type that an installed node provider makes "
            f"({', '.join(sorted(providers)) or 'none is installed'}), and no node of the cluster has it{nearest}; "
            "correct it, leave it out where nodes are prepared, or name a provider with the annotation "
            "kaito.sh/node-provider"
        )
        super().__init__([FieldError("resource.instanceType", message)])


class AdapterSpecError(WorkspaceError):
    """An adapter's source or digest cannot be used as written."""

    reason = "InvalidAdapter"


class UnknownSourceError(AdapterSpecError):
    """No installed adapter source owns the scheme of a reference."""

    reason = "UnknownAdapterSource"

    def __init__(self, field: str, scheme: str, known: Iterable[str], owner: str = "") -> None:
        message = f"has the scheme '{scheme}', which no installed adapter source reads ({known_names(known, scheme)})"
        if owner:
            message = (
                f"has the scheme '{scheme}', which KAITO_SOURCES gives to the source '{owner}': it is not installed"
            )
        super().__init__([FieldError(field, message)])


class DoesNotFitError(WorkspaceError):
    """The preset needs more GPUs or GPU memory than the machines have.

    Args:
        field: Path of the field that chooses the machines.
        needed: What the preset needs, as a clause: "preset 'a' needs 14 GiB of GPU memory".
        largest: What there is, as a clause: "Small has 8 GiB".
    """

    reason = "DoesNotFit"

    def __init__(self, field: str, needed: str, largest: str) -> None:
        super().__init__([FieldError(field, f"does not fit: {needed}, {largest}")])


class NotReadyError(KaitoError):
    """Something is under way and nothing is wrong: wait.

    Attributes:
        reason: CamelCase category for the condition.
        retry_after_seconds: When to look again if no change is seen before.
    """

    def __init__(self, reason: str, message: str, retry_after_seconds: float = 30.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class BackendError(KaitoError):
    """Something outside of the operator failed. Condition Unknown, retried with exponential backoff."""

    reason = "BackendError"


class CapacityError(BackendError):
    """A cloud has no machine or no quota left; the message is the cloud's own.

    ResourceReady and NodeClaimReady become False too: waiting alone may not help.
    """

    reason = "InsufficientCapacity"


class ProviderError(BackendError):
    """A node provider failed for another reason."""

    reason = "NodeProviderFailed"


class PluginFailedError(BackendError):
    """A plugin's answer about one Workspace cannot be used; the message names the plugin.

    Attributes:
        reason: CamelCase category for the condition.
    """

    def __init__(self, message: str, *, reason: str = "PluginFailed") -> None:
        super().__init__(message)
        self.reason = reason


class ClusterError(BackendError):
    """The Kubernetes API returned an error, or did not answer.

    Attributes:
        status: HTTP status code, 0 without an answer.
        api_reason: The API's own reason, such as "Conflict" or "NotFound".
    """

    reason = "KubernetesApiFailed"

    def __init__(self, message: str, *, status: int = 0, api_reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.api_reason = api_reason


class PluginError(KaitoError):
    """A plugin is broken or does not fit this installation.

    Attributes:
        plugin: Name of the entry point or file.
        distribution: "name version" of its distribution, "" where unknown.
    """

    def __init__(self, message: str, *, plugin: str = "", distribution: str = "") -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution


class PluginLoadError(PluginError):
    """A plugin could not be imported or registered, or one of its hooks failed or returned the wrong type."""


class PluginConflictError(PluginError):
    """Two plugins have a record of the same name."""


class UnknownHookError(PluginError):
    """A plugin implements a hook that does not exist."""
