"""Settings of the operator and the command line. `Settings.from_env` is the only reader of os.environ in kaito_core.

A setting is one line of data here: its default, its meaning and its limits. Reading, checking, `kaito operator --help`
and the reference page follow from that.
"""

import dataclasses
import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kaito_core.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "SettingDoc", "Settings", "setting_docs"]

CONFIG_VARIABLE = "KAITO_CONFIG"  #: names the settings file

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LOG_FORMATS = ("text", "json")
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
_PLUGIN_PREFIX = "KAITO_PLUGIN_"

Value = TypeVar("Value")


def _setting(
    default: Value,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> Value:
    """Declares a setting; numbers may be limited, texts to choices."""
    metadata = {"meaning": meaning, "least": least, "most": most, "choices": choices}
    declared: Value = field(default=default, metadata=metadata)
    return declared


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, with defaults that work on a laptop.

    Each field is read from `KAITO_<NAME>` in capitals, where lists are separated by commas, and from a YAML file of the
    same names, which `--config` or `KAITO_CONFIG` names; the environment wins over the file. The options of a plugin
    are `KAITO_PLUGIN_<PLUGIN>__<OPTION>`, or `plugins: {PLUGIN: {OPTION: VALUE}}` in the file.
    """

    namespaces: tuple[str, ...] = _setting((), "Namespaces to watch; empty: all.")
    image_registry: str = _setting(
        "", "Registry and path that replace those of every image of ours, for clusters without internet."
    )
    runtime_image: str = _setting("", "Image that replaces the runtime image of every preset.")
    node_provider: str = _setting("", "Node provider of Workspaces that name none; empty: the plugins answer.")
    plugins_allow: tuple[str, ...] = _setting((), "Entry points to load; empty: all.")
    plugins_deny: tuple[str, ...] = _setting((), "Entry points never to load; wins over the allow list.")
    plugins_dir: str = _setting(
        "", "Folder whose *.py files are plugins and whose *.yaml, *.yml and *.json files are presets; empty: none."
    )
    strict_plugins: bool = _setting(
        False, "Whether a broken plugin stops the process (exit status 2) instead of being left out."
    )
    allow_generic_models: bool = _setting(
        False, "Whether `inference.preset.name: org/model` is served by a preset made from the model's config.json."
    )
    generic_models_dir: str = _setting("", "Folder with ORG/MODEL/config.json of such models; no hub is asked.")
    max_surge: int = _setting(
        0,
        "Pods above the replicas during a rolling update; GPUs are scarce, so none by default, as upstream has it.",
        least=0,
    )
    health_port: int = _setting(
        8081, "Port of /livez, /readyz and /metrics of the operator; 0: none.", least=0, most=65535
    )
    log_level: str = _setting("INFO", "Least level that is logged.", choices=_LOG_LEVELS)
    log_format: str = _setting(
        "text", "How the operator logs: lines for people, or a JSON object a line.", choices=_LOG_FORMATS
    )
    resync_seconds: float = _setting(
        600.0,
        "Every Workspace is looked at this often even if nothing happened, in case a watch went silent.",
        least=1,
        most=86400,
    )
    watch_silence_seconds: float = _setting(
        900.0,
        "A watch that has shown no sign of life for so long fails /livez, so that the operator is started anew; "
        "0: never.",
        least=0,
        most=86400,
    )
    api_timeout_seconds: float = _setting(
        60.0, "How long an answer of the Kubernetes API is waited for.", least=0.1, most=600
    )
    leader_election: bool = _setting(
        False, "Whether this operator is one of several, of which the one that holds a Lease acts; the others stand by."
    )
    leader_election_namespace: str = _setting("kaito-system", "Namespace of that Lease.")
    lease_seconds: int = _setting(15, "How long a leader that has fallen silent is waited for.", least=3, most=300)
    webhook_port: int = _setting(
        0, "Port of the admission webhook, which `kaito install --webhook` sets up; 0: none.", least=0, most=65535
    )
    webhook_namespace: str = _setting("kaito-system", "Namespace of the admission webhook's Service and Secret.")
    plugins: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict, metadata={"meaning": "Options of plugins, by entry point name."}
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, config: Path | None = None) -> "Settings":
        """Returns the settings of an environment and of a file.

        Args:
            environ: The environment; None: the process's.
            config: The file; None: the one that the environment names, if it does.

        Raises:
            ConfigError: A value cannot be used; the message names the variable, or the file and the key.
        """
        env = os.environ if environ is None else environ
        path = config or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
        values = _read_file(path) if path is not None else {}
        for setting in _fields():
            if (variable := _variable(setting)) in env:
                values[setting.name] = _checked(variable, setting, _parsed(variable, env[variable], setting))
        options: dict[str, dict[str, str]] = values.get("plugins", {})
        for plugin, given in _plugin_options(env).items():
            options[plugin] = {**options.get(plugin, {}), **given}
        return cls(**{**values, "plugins": options})


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """What there is to say about a setting. Attributes: kind: "a text", "a number", ... and its limits."""

    name: str
    variable: str
    kind: str
    default: str
    meaning: str


def setting_docs() -> tuple[SettingDoc, ...]:
    """Returns what there is to say about each setting, in order."""
    docs = [
        SettingDoc(item.name, _variable(item), _kind(item), _shown(item.default), item.metadata["meaning"])
        for item in _fields()
    ]
    meaning = Settings.__dataclass_fields__["plugins"].metadata["meaning"]
    return (*docs, SettingDoc("plugins", f"{_PLUGIN_PREFIX}<PLUGIN>__<OPTION>", "a text by option", "", meaning))


def _fields() -> Iterator["dataclasses.Field[Any]"]:
    """Yields the settings but `plugins`, which is a tree of its own."""
    return (item for item in dataclasses.fields(Settings) if item.name != "plugins")


def _variable(setting: "dataclasses.Field[Any]") -> str:
    return f"KAITO_{setting.name.upper()}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value == () else str(value)


def _limits(setting: "dataclasses.Field[Any]") -> str:
    least, most, choices = (setting.metadata[key] for key in ("least", "most", "choices"))
    if choices:
        return f"one of {', '.join(choices)}"
    if most is not None:
        return f"between {least:g} and {most:g}"
    return "" if least is None else f"{least:g} or more"


def _kind(setting: "dataclasses.Field[Any]") -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a list", str: "a text"}
    limits = _limits(setting)
    if setting.metadata["choices"]:
        return limits
    kind = kinds[type(setting.default)]
    return f"{kind}, {limits}" if limits else kind


def _checked(where: str, setting: "dataclasses.Field[Any]", value: Any) -> Any:
    """Returns a value of the right type if it is within the setting's limits."""
    least, most, choices = (setting.metadata[key] for key in ("least", "most", "choices"))
    if choices:
        found = next((choice for choice in choices if choice.lower() == value.lower()), None)
        if found is None:
            raise ConfigError(f"{where} must be {_limits(setting)}, got '{value}'")
        return found
    # Written so that NaN is refused too.
    if (least is not None and not value >= least) or (most is not None and not value <= most):
        raise ConfigError(f"{where} must be {_limits(setting)}, got '{_shown(value)}'")
    return value


def _parsed(where: str, text: str, setting: "dataclasses.Field[Any]") -> Any:
    """Returns the value that a variable of the environment stands for."""
    default = setting.default
    if isinstance(default, bool):
        if text.lower() not in _TRUE + _FALSE:
            raise ConfigError(f"{where} must be true or false, got '{text}'")
        return text.lower() in _TRUE
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError as error:
            raise ConfigError(f"{where} must be {_kind(setting)}, got '{text}'") from error
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _plugin_options(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for variable, value in env.items():
        if variable.startswith(_PLUGIN_PREFIX):
            # Names of plugins contain "_", so two of them separate the option.
            plugin, _, option = variable.removeprefix(_PLUGIN_PREFIX).lower().partition("__")
            if not plugin or not option:
                raise ConfigError(
                    f"{variable} must be of the form {_PLUGIN_PREFIX}<PLUGIN>__<OPTION>: it names no option"
                )
            options.setdefault(plugin, {})[option] = value
    return options


def _read_file(path: Path) -> dict[str, Any]:
    """Returns the settings that a file holds.

    Raises:
        ConfigError: It cannot be read, is no mapping, or has a key or a value that is none.
    """
    import yaml  # only where there is a file: every command starts by reading the settings

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict | None):
        raise ConfigError(f"{path}: must be a mapping from settings to values, got '{document}'")
    settings = {setting.name: setting for setting in _fields()}
    values: dict[str, Any] = {}
    for key, value in (document or {}).items():
        if key == "plugins":
            values[key] = _plugin_tree(f"{path}: plugins", value)
        elif key in settings:
            values[key] = _checked(f"{path}: {key}", settings[key], _typed(f"{path}: {key}", settings[key], value))
        else:
            raise ConfigError(f"{path}: {_unknown(str(key), (*settings, 'plugins'))}")
    return values


def _unknown(key: str, known: tuple[str, ...]) -> str:
    variable = key.lower().removeprefix("kaito_")
    close = [variable] if variable in known else difflib.get_close_matches(variable, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"'{key}' is no setting; {hint}known: {', '.join(sorted(known))}"


def _typed(where: str, setting: "dataclasses.Field[Any]", value: Any) -> Any:
    """Returns the value of a file's key if it has the setting's type."""
    default = setting.default
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(f"{where} must be a list of texts, got '{value}'; write {setting.name}: [NAME, ...]")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        example = f"{setting.name}: {_shown(default) or 'TEXT'}"
        raise ConfigError(f"{where} must be {_kind(setting)}, got '{value}'; write for example {example}")
    return value


def _plugin_tree(where: str, value: Any) -> dict[str, dict[str, str]]:
    plain = str | int | float | bool
    if not isinstance(value, dict) or not all(isinstance(options, dict) for options in value.values()):
        raise ConfigError(f"{where} must be a mapping of mappings, got '{value}'; write {{PLUGIN: {{OPTION: VALUE}}}}")
    for plugin, options in value.items():
        for option, given in options.items():
            if not isinstance(given, plain):
                raise ConfigError(f"{where}.{plugin}.{option} must be a text, got '{given}'")
    # Plugins read texts, whichever way they are set.
    return {
        str(plugin): {str(option): _shown(given) for option, given in options.items()}
        for plugin, options in value.items()
    }
