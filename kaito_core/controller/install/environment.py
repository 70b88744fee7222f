"""The environment of the installed operator: its variables, and the settings that it will read from them.

The manifests are made from these settings, so that probes, ports, replicas and rights fit what the operator does.
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from kaito_core.api.messages import describe
from kaito_core.api.workspace.pod import PodOptions, merged
from kaito_core.errors import ConfigError, known_names
from kaito_core.settings import CONFIG_VARIABLE, Settings, setting_docs

__all__ = ["POD_ID", "Environment", "operator_environment", "pod_variables"]

POD_ID = "POD_ID"  #: variable with the name of the operator's own pod

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)
_PREFIX, _PLUGIN_PREFIX, _POD_DEFAULTS = "KAITO_", "KAITO_PLUGIN_", "KAITO_POD_DEFAULTS"
_TYPING_ERROR = 0.85  # how alike two names are of which one is taken for the other
#: Always the operator's own namespace.
_NAMESPACES = ("KAITO_LEADER_ELECTION_NAMESPACE", "KAITO_WEBHOOK_NAMESPACE")
_WEBHOOK_PORT = "9443"


@dataclass(frozen=True, slots=True)
class Environment:
    """The operator's environment.

    Attributes:
        variables: Environment variables of its container.
        settings: What it reads from them; a settings file inside its pod cannot override them.
    """

    variables: Mapping[str, str]
    settings: Settings


def operator_environment(namespace: str, given: Mapping[str, str], *, webhook: bool = False) -> Environment:
    """Returns the environment of an operator.

    Args:
        namespace: The operator's namespace.
        given: Variables that the user sets.
        webhook: Whether the operator serves the admission webhook; also where `given` sets its port.

    Raises:
        ConfigError: A namespace is not a DNS label, or a variable is unknown, set by `namespace`, or has a bad value.
    """
    _check_namespace("--namespace", namespace)
    for name in given:
        _check_name(name)
    variables = {
        "KAITO_HEALTH_PORT": str(Settings.model_fields["health_port"].default),
        "KAITO_LEADER_ELECTION": "true",
        "KAITO_LEADER_ELECTION_NAMESPACE": namespace,
        "KAITO_LOG_FORMAT": "json",
        **({"KAITO_WEBHOOK_PORT": _WEBHOOK_PORT} if webhook else {}),
        **given,
    }
    # The settings file, if any, is one of the pod's.
    settings = Settings.from_env({name: value for name, value in variables.items() if name != CONFIG_VARIABLE})
    for served in settings.namespaces:
        _check_namespace("KAITO_NAMESPACES", served)
    if settings.webhook_port:
        variables["KAITO_WEBHOOK_NAMESPACE"] = namespace
    elif webhook:
        raise ConfigError("KAITO_WEBHOOK_PORT must be 1 or more with --webhook, got '0'")
    return Environment(variables, settings)


def _check_namespace(where: str, namespace: str) -> None:
    if _DNS_LABEL.fullmatch(namespace) is None:
        rule = "lower-case letters, digits and '-', begin and end with a letter or digit and have at most 63 characters"
        raise ConfigError(f"{where} must consist of {rule}, got '{namespace}'")


def _check_name(name: str) -> None:
    # The operator ignores unknown names, since a cluster adds some to its environment. These here somebody has typed:
    # KAITO_NAMESPACE for KAITO_NAMESPACES would give the operator rights in all namespaces.
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"--env must be NAME=VALUE, NAME of letters, digits, '_', '-' and '.', got '{name}'")
    if name == POD_ID:
        raise ConfigError(f"--env {name} cannot be set: it is the name of the operator's own pod")
    if name in _NAMESPACES:
        raise ConfigError(f"--env {name} cannot be set: it is the operator's own namespace, which --namespace sets")
    known = [doc.variable for doc in setting_docs() if doc.name != "plugins" and doc.variable not in _NAMESPACES]
    if name in (*known, CONFIG_VARIABLE) or name.startswith(_PLUGIN_PREFIX):
        return
    # The settings are read whatever the case of their names.
    meant = name.upper()
    if meant.startswith(_PREFIX) or difflib.get_close_matches(meant, known, n=1, cutoff=_TYPING_ERROR):
        raise ConfigError(f"--env: unknown setting '{name}'; {known_names(known, meant)}")


def pod_variables(defaults: str, variables: Mapping[str, str], ca_bundle: str) -> str:
    """Returns the setting KAITO_POD_DEFAULTS with variables and a bundle of authorities for every container.

    Args:
        defaults: The setting as it is, "" for none.
        variables: Names and values.
        ca_bundle: Name of a ConfigMap, or NAME/KEY; "" for none.

    Raises:
        ConfigError: A variable is one that the operator sets, or the bundle has no such form.
    """
    if not variables and not ca_bundle:
        return defaults
    before = Settings.from_env({_POD_DEFAULTS: defaults} if defaults else {}).pod_defaults
    name, _, key = ca_bundle.partition("/")
    added: dict[str, Any] = {"env": [{"name": name, "value": value} for name, value in variables.items()]}
    if ca_bundle:
        added["caBundle"] = {"configMap": name, **({"key": key} if key else {})}
    try:
        options = merged([before, PodOptions.model_validate(added)])
    except ValidationError as error:
        found = error.errors()[0]
        option = "--ca-bundle" if found["loc"][0] == "caBundle" else "--pod-env"
        raise ConfigError(f"{option} {describe(found)}") from error
    return json.dumps(options, separators=(",", ":"))
