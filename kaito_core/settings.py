"""Settings of the operator and the command line. `Settings.from_env` is the only reader of os.environ in kaito_core.

A setting is one field: its type and bounds, its default and its description. Reading (by pydantic-settings), error
messages, `kaito operator --help` and the reference page are made from that.
"""

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from kaito_core.api.messages import describe, field_path
from kaito_core.api.workspace.pod import PodOptions
from kaito_core.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "SettingDoc", "Settings", "setting_docs"]

CONFIG_VARIABLE = "KAITO_CONFIG"  #: names the settings file

_PREFIX = "KAITO_"
_PLUGIN_PREFIX = "KAITO_PLUGIN_"
_SOURCE = re.compile(r"[a-z][a-z0-9+.-]*=[\w-]+", re.ASCII)


def _split(value: object) -> object:
    """Returns the items of a list that is written in one variable, separated by commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _mapping(value: object) -> object:
    """Returns the mapping that is written in one variable, as YAML or JSON."""
    if not isinstance(value, str):
        return value
    import yaml  # only where it is set: every command starts by reading the settings

    try:
        return yaml.safe_load(value) or {}
    except yaml.YAMLError as error:
        raise PydanticCustomError("yaml", "must be YAML or JSON") from error


def _check_sources(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_SOURCE.fullmatch(item) for item in value):
        raise ValueError("each must be SCHEME=SOURCE")
    return value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Sources = Annotated[Names, AfterValidator(_check_sources)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class Settings(BaseSettings):
    """Everything that can be set, with defaults that work on a laptop.

    Each field is read from `KAITO_<NAME>` in capitals, where lists are separated by commas, and from a YAML file of the
    same names, which `--config` or `KAITO_CONFIG` names; the environment wins over the file. The options of a plugin
    are `KAITO_PLUGIN_<PLUGIN>__<OPTION>`, or `plugins: {PLUGIN: {OPTION: VALUE}}` in the file.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    namespaces: Names = Field(default=(), description="Namespaces to watch; empty: all.")
    image_registry: str = Field(
        default="",
        description="Registry and path that replace those of every kaito image, for clusters without internet.",
    )
    runtime_image: str = Field(default="", description="Image that replaces the runtime image of every preset.")
    node_provider: str = Field(
        default="",
        description="Node provider of Workspaces that name none; empty: plugins choose.",
    )
    autoscaled_nodes: bool = Field(
        default=False,
        description="Whether the cluster's own autoscaler makes nodes for pods that wait: the pods of Workspaces that "
        "name no node provider and no machine type of one are then made before there are nodes.",
    )
    plugins_allow: Names = Field(default=(), description="Entry points to load; empty: all.")
    plugins_deny: Names = Field(default=(), description="Entry points never to load; wins over the allow list.")
    plugins_dir: str = Field(
        default="",
        description="Folder whose *.py files are plugins and whose *.yaml, *.yml and *.json files are presets; "
        "empty: none.",
    )
    strict_plugins: bool = Field(
        default=False,
        description="Whether a broken plugin stops the process (exit status 2) instead of being left out.",
    )
    allow_generic_models: bool = Field(
        default=False,
        description="Whether `inference.preset.name: org/model` is served by a preset made from the model's "
        "config.json.",
    )
    generic_models_dir: str = Field(
        default="",
        description="Folder with ORG/MODEL/config.json of such models; no hub is asked.",
    )
    sources: Sources = Field(
        default=(),
        title="each SCHEME=SOURCE",
        description="Adapter sources that read a scheme instead of the usual one, such as a company's mirror: "
        "`hf=acme`.",
    )
    fetch_http: bool = Field(
        default=False,
        description="Whether adapters are fetched over plain http too, which anybody on the way can read and change.",
    )
    fetch_hosts: Names = Field(
        default=(),
        description="Hosts that adapters are fetched from, `*.example.com` for all below one; redirects count; "
        "empty: all public ones.",
    )
    fetch_private_hosts: Names = Field(
        default=(),
        description="Hosts that may have private addresses, such as a registry inside the cluster; addresses and "
        "networks too (`10.0.0.0/8`).",
    )
    fetch_max_gib: float = Field(
        default=16.0,
        gt=0,
        le=1024,
        description="Largest adapter that is fetched, in GiB.",
    )
    fetch_cache_dir: str = Field(
        default="",
        description="Folder in which adapters are kept by digest, shared by the processes that see it; empty: none.",
    )
    max_surge: int = Field(
        default=0,
        ge=0,
        description="Pods above the replicas during a rolling update; 0 by default, since GPUs are scarce.",
    )
    pod_defaults: Annotated[PodOptions, NoDecode, BeforeValidator(_mapping)] = Field(
        default=PodOptions(),
        description="What the pods of every preset take along, as `inference.pod` of a Workspace writes it, which is "
        "merged into it. In the environment as YAML or JSON.",
    )
    weights_host_paths: Names = Field(
        default=(),
        description="Folders of nodes in which `inference.weights.hostPath` may keep weights; empty: none.",
    )
    health_port: int = Field(
        default=8081,
        ge=0,
        le=65535,
        description="Port of /livez, /readyz and /metrics of the operator; 0: none.",
    )
    log_level: LogLevel = Field(default="INFO", description="Least severe level that is logged.")
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="How the operator logs: lines for people, or one JSON object per line.",
    )
    resync_seconds: float = Field(
        default=600.0,
        ge=1,
        le=86400,
        description="How often every Workspace is checked even if nothing happened, in case a watch went silent.",
    )
    watch_silence_seconds: float = Field(
        default=900.0,
        ge=0,
        le=86400,
        description="How long a watch may be silent before /livez fails, so that the operator is restarted; 0: for "
        "ever.",
    )
    api_timeout_seconds: float = Field(
        default=60.0,
        ge=0.1,
        le=600,
        description="Timeout of requests to the Kubernetes API.",
    )
    leader_election: bool = Field(
        default=False,
        description="Whether this operator is one of several replicas, of which the holder of a Lease acts.",
    )
    leader_election_namespace: str = Field(default="kaito-system", description="Namespace of that Lease.")
    lease_seconds: int = Field(
        default=15,
        ge=3,
        le=300,
        description="How long the Lease of a leader that has fallen silent stays valid.",
    )
    webhook_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of the admission webhook, which `kaito install --webhook` sets up; 0: none.",
    )
    webhook_namespace: str = Field(
        default="kaito-system",
        description="Namespace of the admission webhook's Service and Secret.",
    )
    plugins: Mapping[str, Mapping[str, str]] = Field(default={}, description="Options of plugins, by entry point name.")

    def source_of(self, scheme: str) -> str:
        """Returns the name of the source that a scheme is given to, "" where it is the one that brings the scheme."""
        return dict(item.split("=", 1) for item in self.sources).get(scheme, "")

    def for_fetches(self) -> dict[str, str]:
        """Returns the environment that makes `kaito-fetch` in a pod follow these settings; empty for the defaults."""
        texts = {
            f"{_PREFIX}{name.upper()}": ",".join(value) if isinstance(value, tuple) else _shown(value)
            for name, field in _fields()
            if (name == "sources" or name.startswith("fetch_")) and (value := getattr(self, name)) != field.default
        }
        # A folder of the operator's is none of the pod's.
        texts.pop(f"{_PREFIX}FETCH_CACHE_DIR", None)
        return texts

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Lets `Settings()` be the defaults: the environment is read where `from_env` is called, and nowhere else."""
        return (init_settings,)

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
        in_file = {} if path is None else _read_file(path)
        in_env = _checked(_Environment(cls, env)(), lambda name: f"{_PREFIX}{name.upper()}")
        options = {plugin: dict(given) for plugin, given in in_file.pop("plugins", {}).items()}
        for plugin, given in _plugin_options(env).items():
            options[plugin] = {**options.get(plugin, {}), **given}
        return cls(**{**in_file, **in_env, "plugins": options})


class _Environment(EnvSettingsSource):
    """The variables of any mapping, where pydantic-settings reads those of the process alone."""

    def __init__(self, settings: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = {key.lower(): value for key, value in environ.items()}
        super().__init__(settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        # Options of plugins have a prefix of their own.
        return {key: value for key, value in self._environ.items() if key != f"{_PREFIX}plugins".lower()}


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """The documentation of a setting.

    Attributes:
        kind: Its type and bounds in words, such as "a whole number, 0 or more".
    """

    name: str
    variable: str
    kind: str
    default: str
    meaning: str


def setting_docs() -> tuple[SettingDoc, ...]:
    """Returns the documentation of each setting, in order."""
    docs = [
        SettingDoc(name, f"{_PREFIX}{name.upper()}", _kind(field), _shown(field.default), str(field.description))
        for name, field in _fields()
    ]
    meaning = str(Settings.model_fields["plugins"].description)
    return (*docs, SettingDoc("plugins", f"{_PLUGIN_PREFIX}<PLUGIN>__<OPTION>", "a text by option", "", meaning))


def _unknown_setting(key: str) -> str:
    """Returns what is wrong with the name of a setting that does not exist, and the names that do."""
    known = sorted(Settings.model_fields)
    name = key.lower().removeprefix(_PREFIX.lower())
    close = [name] if name in known else difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown setting '{key}'; {hint}known: {', '.join(known)}"


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    """Yields the settings except `plugins`, whose keys belong to the plugins."""
    return ((name, field) for name, field in Settings.model_fields.items() if name != "plugins")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value in ((), PodOptions()) else str(value)


def _kind(field: FieldInfo) -> str:
    """Returns the type and the bounds of a setting in words."""
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        tuple: "a list of texts",
        str: "a text",
        PodOptions: "a mapping",
    }
    least, above, most = (
        next((bound for entry in field.metadata if (bound := getattr(entry, name, None)) is not None), None)
        for name in ("ge", "gt", "le")
    )
    if above is not None:
        return f"{kinds[type(field.default)]}, above {above:g} and at most {most:g}"
    limits = "" if least is None else f"{least:g} or more" if most is None else f"between {least:g} and {most:g}"
    return ", ".join(filter(None, [kinds[type(field.default)], limits, field.title]))


def _checked(values: Mapping[str, Any], where: Callable[[str], str]) -> dict[str, Any]:
    """Returns values of the right types.

    Args:
        values: By the name of the setting.
        where: Says where the value of a setting stands.

    Raises:
        ConfigError: Names the place, the value, and what it must be.
    """
    try:
        read = Settings(**values)
    except ValidationError as error:
        found = error.errors()[0]
        name, inside = str(found["loc"][0]), found["loc"][1:]
        field = Settings.model_fields[name]
        if field.annotation is PodOptions and inside:
            unknown = found["type"] == "extra_forbidden"
            words = "is not a field of inference.pod; check the spelling or remove it" if unknown else describe(found)
            raise ConfigError(f"{where(name)}: {field_path(inside)} {words}") from error
        raise ConfigError(f"{where(name)} must be {_kind(field)}, got '{values[name]}'") from error
    return {name: getattr(read, name) for name in values}


def _has_type(value: object, field: FieldInfo) -> bool:
    """Returns whether a value from a file, where types can be written, has the type of a setting."""
    if isinstance(field.default, tuple):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if field.annotation is PodOptions:
        return isinstance(value, dict)
    # To Python, True is an integer.
    return type(value) is type(field.default) or (isinstance(field.default, float) and type(value) is int)


def _plugin_options(env: Mapping[str, str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for variable, value in env.items():
        if variable.startswith(_PLUGIN_PREFIX):
            # Names of plugins contain "_", so two of them separate the option.
            plugin, _, option = variable.removeprefix(_PLUGIN_PREFIX).lower().partition("__")
            if not plugin or not option:
                raise ConfigError(f"{variable} names no option: write {_PLUGIN_PREFIX}<PLUGIN>__<OPTION>")
            options.setdefault(plugin, {})[option] = value
    return options


def _read_file(path: Path) -> dict[str, Any]:
    """Returns the settings that a file holds.

    Raises:
        ConfigError: It cannot be read, is not a mapping, or has an unknown key or a value of the wrong type.
    """
    import yaml  # only where there is a file: every command starts by reading the settings

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict | None):
        raise ConfigError(f"{path}: must be a mapping from settings to values, got '{document}'")
    values = dict(document or {})
    if unknown := [key for key in values if key not in Settings.model_fields]:
        raise ConfigError(f"{path}: {_unknown_setting(str(unknown[0]))}")
    for name, value in values.items():
        if name != "plugins" and not _has_type(value, field := Settings.model_fields[name]):
            example = "[NAME, ...]" if field.default == () else _shown(field.default) or "TEXT"
            if field.annotation is PodOptions:
                example = "{labels: {team: search}}"
            raise ConfigError(
                f"{path}: {name} must be {_kind(field)}, got '{value}'; write for example {name}: {example}"
            )
    plugins = {"plugins": _plugin_tree(f"{path}: plugins", values.pop("plugins"))} if "plugins" in values else {}
    return {**_checked(values, lambda name: f"{path}: {name}"), **plugins}


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
