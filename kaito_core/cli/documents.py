"""Reading Workspaces from files and standard input. They are parsed and checked elsewhere."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from kaito_core.api.workspace.model import GROUP
from kaito_core.errors import ConfigError
from kaito_core.reconcile.options.serving import CONFIG_KEY

__all__ = [
    "ConfigOption",
    "Documents",
    "FilesArgument",
    "FilesOption",
    "config_name",
    "document_name",
    "given_files",
    "read_config",
    "read_documents",
]

_STANDARD_INPUT = Path("-")

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="YAML files with Workspaces; - is standard input.", show_default=False),
]
FilesOption = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", metavar="FILE", help="The same, as kubectl takes it.", show_default=False),
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--serving-config",
        metavar="FILE",
        help="The ConfigMap that inference.config names, or the options in it. Default: a ConfigMap in the same file.",
        show_default=False,
    ),
]


def given_files(arguments: Sequence[Path] | None, options: Sequence[Path] | None) -> list[Path]:
    """Returns the files that a command was given, as arguments or with -f.

    Raises:
        ConfigError: There is none.
    """
    if files := [*(arguments or ()), *(options or ())]:
        return files
    raise ConfigError("no FILE given; name a YAML file with a Workspace, or - for standard input")


def document_name(path: Path) -> str:
    """Returns what messages call a file."""
    return "standard input" if path == _STANDARD_INPUT else str(path)


@dataclass(frozen=True, slots=True)
class Documents:
    """What is of interest in a file.

    Attributes:
        workspaces: The Workspaces, not yet parsed.
        config_maps: The data of ConfigMaps, by name.
    """

    workspaces: list[Any]
    config_maps: Mapping[str, Mapping[str, Any]]

    def config(self, document: object) -> Mapping[str, Any] | None:
        """Returns the data of the ConfigMap that a Workspace names, None where it names none or it is not here."""
        return self.config_maps.get(config_name(document))


def config_name(document: object) -> str:
    """Returns the name of the ConfigMap of serving options that a Workspace names, "" for none."""
    inference = document.get("inference") if isinstance(document, dict) else None
    name = inference.get("config") if isinstance(inference, dict) else None
    return name if isinstance(name, str) else ""


def read_config(path: Path) -> Mapping[str, Any]:
    """Returns the data of the ConfigMap in a file; a file of another form is the options themselves.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None  # the reader of the options has the better message
    if isinstance(document, dict) and document.get("kind") == "ConfigMap":
        data: Mapping[str, Any] = document.get("data") or {}
        return data
    return {CONFIG_KEY: text}


def read_documents(path: Path) -> Documents:
    """Returns the Workspaces and the ConfigMaps of a YAML or JSON file. Documents of other kinds are ignored.

    A `file:` URI with a relative path becomes absolute: it is meant relative to the file it is written in.

    Args:
        path: The file; "-" is standard input.

    Raises:
        ConfigError: The file cannot be read, is not valid YAML, or has no Workspace.
    """
    name = document_name(path)
    try:
        content = sys.stdin.buffer.read() if path == _STANDARD_INPUT else path.read_bytes()
        documents = [document for document in yaml.safe_load_all(content.decode()) if document is not None]
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: not a text file in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}: invalid YAML{where}: {getattr(error, 'problem', None) or error}") from error
    if not documents:
        raise ConfigError(f"{name}: empty, expected a Workspace")
    workspaces = [document for document in documents if _may_be_workspace(document)]
    if not workspaces:
        kinds = ", ".join(sorted({str(document.get("kind")) for document in documents}))
        raise ConfigError(f"{name}: expected a Workspace of {GROUP}, got only {kinds}")
    for workspace in workspaces:
        for source in _sources(workspace):
            uri = source.get("uri")
            if isinstance(uri, str) and uri.startswith("file:") and not uri.startswith("file:/"):
                source["uri"] = f"file://{(path.parent / uri.removeprefix('file:')).resolve()}"
    return Documents(workspaces, dict(_config_maps(documents)))


def _config_maps(documents: Sequence[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for document in documents:
        if isinstance(document, dict) and document.get("kind") == "ConfigMap":
            metadata, data = document.get("metadata"), document.get("data")
            if isinstance(metadata, dict):
                yield str(metadata.get("name")), data if isinstance(data, dict) else {}


def _may_be_workspace(document: object) -> bool:
    # What is not a mapping is kept: the parser has the better message.
    return not isinstance(document, dict) or document.get("kind") in ("Workspace", None)


def _sources(document: object) -> Iterator[dict[str, Any]]:
    inference = document.get("inference") if isinstance(document, dict) else None
    adapters = inference.get("adapters") if isinstance(inference, dict) else None
    for adapter in adapters if isinstance(adapters, list) else []:
        source = adapter.get("source") if isinstance(adapter, dict) else None
        if isinstance(source, dict):
            yield source
