"""Finds plugins without importing them: entry points of installed distributions, and files of the plugins folder."""

import ast
import importlib.util
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from importlib_metadata import EntryPoint, EntryPoints, entry_points

from kaito_core.errors import ConfigError, PluginLoadError
from kaito_core.plugins.project import HookProject

__all__ = ["Candidate", "find_candidates"]

_API_CONSTANT = "KAITO_API"
_FIRST_API = "v1"  # which plugins are written for that do not declare a version
_DATA_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Candidate(ABC):
    """A plugin that was found and not imported yet.

    Attributes:
        name: Name of its entry point, or of its file without the suffix.
        distribution: "name version" of the distribution that brings it, "" where it is a file.
        module: What the entry point names, or the file.
        project: The hooks that it is a plugin of.
    """

    name: str
    distribution: str
    module: str
    project: HookProject

    @abstractmethod
    def load(self) -> object:
        """Imports the plugin and returns it.

        Raises:
            BaseException: Whatever its code raises.
        """

    @abstractmethod
    def asked_api(self) -> str:
        """Returns the version of the hooks that it asks for, "vN", without importing it."""

    def file(self) -> str:
        """Returns where the code is that was loaded, "" where that is not known."""
        return self.module

    def check_api(self) -> None:
        """Raises PluginLoadError unless it asks for the hooks that are installed."""
        if (asked := self.asked_api()) != (installed := f"v{self.project.api_version}"):
            raise PluginLoadError(
                f"asks for plugin API {asked}, this kaito-core has {installed}; install a version of it that fits"
            )

    def check_versions(self, plugin: object) -> tuple[str, ...]:
        """Returns remarks on versions in the loaded plugin's code that differ from those of its metadata.

        Raises:
            PluginLoadError: Its code says that it was written for other hooks.
        """
        declared = getattr(plugin, _API_CONSTANT, self.project.api_version)
        if declared != self.project.api_version:
            raise PluginLoadError(
                f"asked for plugin API {self.asked_api()} before it was imported, its code says {_API_CONSTANT} = "
                f"{declared!r:.80}; install a version of it that fits"
            )
        return ()


@dataclass(frozen=True, slots=True)
class _Installed(Candidate):
    entry: EntryPoint
    api: str

    def asked_api(self) -> str:
        return self.api

    def load(self) -> object:
        plugin: object = import_module(self.entry.module)
        for attribute in filter(None, (self.entry.attr or "").split(".")):
            plugin = getattr(plugin, attribute)
        return plugin

    def file(self) -> str:
        return str(getattr(sys.modules.get(self.entry.module), "__file__", None) or "")

    def check_versions(self, plugin: object) -> tuple[str, ...]:
        # Zero-argument super() does not work in a dataclass with slots.
        remarks = Candidate.check_versions(self, plugin)
        own = getattr(sys.modules.get(self.entry.module.partition(".")[0]), "__version__", None)
        installed = self.distribution.rpartition(" ")[2]
        if isinstance(own, str) and installed and own != installed:
            remarks += (f"has __version__ {own}, but is installed as {installed}",)
        return remarks


@dataclass(frozen=True, slots=True)
class _ModuleFile(Candidate):
    """One Python file; it asks for other hooks by a line such as `KAITO_API = 1`, which is read and not run."""

    def asked_api(self) -> str:
        try:
            tree = ast.parse(Path(self.module).read_bytes(), self.module)
        except (SyntaxError, ValueError):
            return _FIRST_API  # the error of the import says what is wrong
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == _API_CONSTANT for target in node.targets
            ):
                if isinstance(node.value, ast.Constant) and type(node.value.value) is int:
                    return f"v{node.value.value}"
                raise PluginLoadError(
                    f"line {node.lineno}: {_API_CONSTANT} must be a whole number written out, such as 1: it is read "
                    "before the file is run"
                )
        return _FIRST_API

    def load(self) -> object:
        module_name = f"kaito_plugin_file_{self.name}"
        spec = importlib.util.spec_from_file_location(module_name, self.module)
        assert spec is not None and spec.loader is not None  # the suffix is .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module  # dataclasses and pickle look their module up there
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        return module


@dataclass(frozen=True, slots=True)
class _PresetFile(Candidate):
    """Presets as data; `apiVersion` says which form they have."""

    def asked_api(self) -> str:
        return _FIRST_API

    def load(self) -> object:
        from kaito_core.plugins.preset_file import preset_plugin  # YAML is read only where there is some

        return preset_plugin(Path(self.module))


def find_candidates(
    project: HookProject, folder: str = "", entries: Iterable[EntryPoint] | None = None
) -> list[Candidate]:
    """Returns everything that could be a plugin, in the order of loading.

    Ours come first, then other distributions, then files; each by name. So of two plugins with one name a third
    party's is the later one.

    Args:
        project: The hooks that they are plugins of.
        folder: The folder of plugin files, "" for none.
        entries: Entry points to read instead of those of the installed distributions.

    Raises:
        ConfigError: The folder cannot be read.
    """
    installed = sorted(
        _installed(project, entries), key=lambda found: (not _is_ours(found), found.name, found.distribution)
    )
    return [*installed, *_files(project, folder)]


def _is_ours(candidate: Candidate) -> bool:
    return candidate.module.startswith("kaito_core.")


def _installed(project: HookProject, entries: Iterable[EntryPoint] | None) -> Iterator[Candidate]:
    everything = EntryPoints(entries) if entries is not None else entry_points()  # reads all metadata: once
    declared = everything.select(group=f"{project.name}.api")
    versions = {(entry.name, _distribution(entry)): entry.value for entry in declared}
    for entry in everything.select(group=project.name):
        distribution = _distribution(entry)
        api = versions.get((entry.name, distribution), _FIRST_API)
        yield _Installed(entry.name, distribution, entry.value, project, entry, api)


def _distribution(entry: EntryPoint) -> str:
    try:
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
    except Exception:  # metadata that is missing or damaged; the plugin itself may still work
        return ""


def _files(project: HookProject, folder: str) -> Iterator[Candidate]:
    if not folder:
        return
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.is_file())
    except OSError as error:
        raise ConfigError(f"KAITO_PLUGINS_DIR: '{folder}' cannot be read: {error.strerror}") from error
    for path in paths:
        if path.name.startswith((".", "_")):  # hidden, or a helper module
            continue
        if path.suffix == ".py":
            yield _ModuleFile(path.stem, "", str(path), project)
        elif path.suffix in _DATA_SUFFIXES:
            yield _PresetFile(path.stem, "", str(path), project)
