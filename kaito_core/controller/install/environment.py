"""The environment of the installed operator: its variables, and the settings that it will read from them.

The manifests are made from these settings, so that probes, ports, replicas and rights fit what the operator does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kaito_core.errors import ConfigError, known_names
from kaito_core.settings import CONFIG_VARIABLE, Settings, setting_docs

__all__ = ["Environment", "operator_environment"]

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PLUGIN_PREFIX = "KAITO_PLUGIN_"
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
    if name in _NAMESPACES:
        raise ConfigError(f"--env {name} cannot be set: it is the operator's own namespace, which --namespace sets")
    known = [doc.variable for doc in setting_docs() if doc.name != "plugins" and doc.variable not in _NAMESPACES]
    if name not in (*known, CONFIG_VARIABLE) and not name.startswith(_PLUGIN_PREFIX):
        raise ConfigError(f"--env: unknown setting '{name}'; {known_names(known, name)}")
