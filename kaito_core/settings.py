"""Settings of the operator and the command line. `Settings.from_env` is the only reader of os.environ in kaito_core."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_core.errors import ConfigError

__all__ = ["Settings"]

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with defaults that work on a laptop.

    Each field is read from `KAITO_<NAME>` in capitals; lists are separated by commas, the options of a plugin are
    `KAITO_PLUGIN_<PLUGIN>__<OPTION>`.
    """

    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; empty: all."""
    image_registry: str = ""
    """Registry and path that replace those of every image of ours, for clusters without internet."""
    runtime_image: str = ""
    """Image that replaces the runtime image of every preset."""
    node_provider: str = ""
    """Node provider of Workspaces that name none; empty: the plugins answer."""
    plugins_allow: tuple[str, ...] = ()
    """Entry points to load; empty: all."""
    plugins_deny: tuple[str, ...] = ()
    """Entry points never to load; wins over the allow list."""
    plugins_dir: str = ""
    """Folder whose *.py files are plugins and whose *.yaml, *.yml and *.json files are presets; empty: none."""
    strict_plugins: bool = False
    """Whether a broken plugin stops the process (exit status 2) instead of being left out."""
    allow_generic_models: bool = False
    """Whether `inference.preset.name: org/model` is served by a preset made from the model's config.json."""
    generic_models_dir: str = ""
    """Folder with ORG/MODEL/config.json of such models; no hub is asked."""
    max_surge: int = 0
    """Pods above the replicas during a rolling update; GPUs are scarce, so none by default, as upstream has it."""
    health_port: int = 8081
    """Port of /livez, /readyz and /metrics of the operator; 0: none."""
    log_level: str = "INFO"
    """Least level that is logged."""
    resync_seconds: float = 600.0
    """Every Workspace is looked at this often even if nothing happened, in case a watch went silent."""
    leader_election: bool = False
    """Whether this operator is one of several, of which the one that holds a Lease acts; the others stand by."""
    leader_election_namespace: str = "kaito-system"
    """Namespace of that Lease."""
    lease_seconds: int = 15
    """How long a leader that has fallen silent is waited for."""
    plugins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Options of plugins, by entry point name."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Returns the settings of an environment.

        Raises:
            ConfigError: A value cannot be read; the message names the variable.
        """
        env = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for name, default in _DEFAULTS.items():
            variable = f"KAITO_{name.upper()}"
            if name != "plugins" and variable in env:
                values[name] = _parse(variable, env[variable], default)
        values["plugins"] = _plugin_options(env)
        settings = cls(**values)
        settings._check()
        return settings

    def _check(self) -> None:
        for name, fits, allowed in (
            ("max_surge", self.max_surge >= 0, "0 or more"),
            ("health_port", 0 <= self.health_port <= 65535, "a port, or 0 for none"),
            ("resync_seconds", 1 <= self.resync_seconds <= 86400, "between 1 and 86400"),
            ("lease_seconds", 3 <= self.lease_seconds <= 300, "between 3 and 300"),
            ("log_level", self.log_level.upper() in _LOG_LEVELS, f"one of {', '.join(_LOG_LEVELS)}"),
        ):
            if not fits:
                raise ConfigError(f"KAITO_{name.upper()} must be {allowed}, got '{getattr(self, name)}'")


_DEFAULTS: Mapping[str, object] = {name: getattr(Settings(), name) for name in Settings.__dataclass_fields__}


def _parse(variable: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigError(f"{variable} must be true or false, got '{text}'")
        return text.lower() in _TRUE
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError as error:
            raise ConfigError(f"{variable} must be a number, got '{text}'") from error
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _plugin_options(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    prefix = "KAITO_PLUGIN_"
    options: dict[str, dict[str, str]] = {}
    for variable, value in env.items():
        if variable.startswith(prefix):
            # Names of plugins contain "_", so two of them separate the option.
            plugin, _, option = variable.removeprefix(prefix).lower().partition("__")
            if not plugin or not option:
                raise ConfigError(f"{variable} must be of the form {prefix}<PLUGIN>__<OPTION>: it names no option")
            options.setdefault(plugin, {})[option] = value
    return options
