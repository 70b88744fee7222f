"""The commands that take Workspaces: validate, render and up."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kaito_core.api import KubeObject, NodeState, parse_workspace
from kaito_core.api.workspace.model import PROVIDER_ANNOTATION
from kaito_core.api.yaml_text import dump_yaml
from kaito_core.builtin.scheduler import SCHEDULER
from kaito_core.cli.documents import (
    ConfigOption,
    Documents,
    FilesArgument,
    FilesOption,
    config_name,
    document_name,
    given_files,
    read_config,
    read_documents,
)
from kaito_core.cli.output import ReportFormat, ReportOption, print_data
from kaito_core.cli.pairs import parse_pairs
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError, WorkspaceError
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import Resolved, resolve

__all__ = ["render", "up", "validate"]


def validate(
    context: typer.Context,
    files: FilesArgument = None,
    filename: FilesOption = None,
    serving_config: ConfigOption = None,
    output: ReportOption = ReportFormat.text,
) -> None:
    """Check Workspaces as the operator does, plugins included. Exit with status 1 if one is wrong.

    With -o json or yaml there is a record for each fault, and one with "error": null for each valid Workspace. What has
    no effect is named on standard error, and in "warnings" of valid Workspaces.
    """
    session: Session = context.obj
    rows = [row for file in given_files(files, filename) for row in _checked(session, file, serving_config)]
    for row in rows:
        _say(row["file"], row["warnings"])
    if output is ReportFormat.text:
        for row in rows:
            found = " ".join(filter(None, (row["field"], row["error"])))
            print(f"{row['file']}: {found or f'''Workspace '{row['workspace']}' is valid'''}")
    else:
        print_data(rows, output)
    raise typer.Exit(1 if any(row["error"] for row in rows) else 0)


def _checked(session: Session, path: Path, config: Path | None) -> Iterator[dict[str, Any]]:
    """Yields the faults of a file's Workspaces, and for each valid one a row without an error."""
    file = document_name(path)
    try:
        found = read_documents(path)
    except ConfigError as error:
        message = str(error).removeprefix(f"{file}: ")
        yield {"file": file, "workspace": None, "field": None, "error": message, "warnings": []}
        return
    for document in found.workspaces:
        metadata = document.get("metadata") if isinstance(document, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        known = {"file": file, "workspace": None if name is None else str(name)}
        row: dict[str, Any] = {**known, "field": None, "error": None, "warnings": []}
        try:
            resolved, _ = _objects(session, document, _config(document, found, config))
        except WorkspaceError as error:
            yield from ({**row, "field": fault.field or None, "error": fault.message} for fault in error.errors)
        else:
            yield {**row, "warnings": _warnings(document, found, config, resolved)}


def _config(document: object, found: Documents, given: Path | None) -> Mapping[str, Any] | None:
    """Returns the data of the ConfigMap that a Workspace names, as far as it is at hand."""
    return read_config(given) if given is not None and config_name(document) else found.config(document)


def _warnings(document: object, found: Documents, given: Path | None, resolved: Resolved) -> list[str]:
    """Returns how fields that are right were understood, and what has no effect."""
    name = config_name(document)
    unread = name and resolved.preset is not None and _config(document, found, given) is None
    words = f"inference.config: ConfigMap '{name}' is not in the file, so its options are not checked; --serving-config"
    return [*map(str, resolved.notices), *resolved.unused, *([f"{words} names a file with them"] if unread else [])]


def _say(file: str, warnings: Iterable[str]) -> None:
    """Prints warnings; not where programs read."""
    for words in warnings:
        print(f"{file}: warning: {words}", file=sys.stderr)


def _objects(
    session: Session, document: object, config: Mapping[str, Any] | None
) -> tuple[Resolved, tuple[KubeObject, ...]]:
    """Returns what plugins know about a Workspace, and what is created for it on machines of the type that it names.

    Raises:
        WorkspaceError: The Workspace is wrong.
    """
    resolved = resolve(parse_workspace(document), session.registry, config)
    workspace = resolved.workspace
    sku = session.registry.sku(workspace.resource.instance_type)
    provider = workspace.metadata.annotations.get(PROVIDER_ANNOTATION) or session.settings.node_provider
    nodes = NodeState((), sku=sku, pods_first=provider == SCHEDULER)
    return resolved, desired(resolved, nodes, session.settings).objects


def render(
    context: typer.Context,
    files: FilesArgument = None,
    filename: FilesOption = None,
    serving_config: ConfigOption = None,
) -> None:
    """Print the objects that the operator creates for Workspaces. What has no effect is named on standard error."""
    objects: list[KubeObject] = []
    for file in given_files(files, filename):
        found = read_documents(file)
        for document in found.workspaces:
            with _named(file):
                config = _config(document, found, serving_config)
                resolved, made = _objects(context.obj, document, config)
            _say(document_name(file), _warnings(document, found, serving_config, resolved))
            objects += made
    sys.stdout.write(dump_yaml(objects))


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Adds the file's name to what is wrong with one of its Workspaces."""
    try:
        yield
    except WorkspaceError as error:
        raise ConfigError(f"{document_name(file)}: {error}") from error


def up(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="YAML file with a Workspace; - is standard input.", show_default=False),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 5000,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights on this machine: a Hugging Face folder or a GGUF file. Default: the preset's, downloaded.",
            show_default=False,
        ),
    ] = None,
    serving_config: ConfigOption = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF=PATH",
            help="An adapter image on this machine: an OCI layout or a `docker save` archive. Can be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a Workspace on this machine. No cluster is needed, and no GPU for small models. Ctrl-C ends it.

    Edits of FILE are applied while it is served: strengths, and adapters that are added, replaced or removed.
    """
    from kaito_core.local.edits import Edits
    from kaito_core.local.up import serve_locally

    session: Session = context.obj
    images = {name: Path(path) for name, path in parse_pairs("--image", "REF=PATH", image).items()}

    def read() -> Resolved:
        found = read_documents(file)
        if len(found.workspaces) > 1:
            count = len(found.workspaces)
            raise ConfigError(f"{document_name(file)}: expected one Workspace, got {count}; kaito up serves one")
        (document,) = found.workspaces
        with _named(file):
            workspace = parse_workspace(document)
            if workspace.inference.weights is not None:
                words = "inference.weights is not used here: weights stay in the cache of this user"
                _say(document_name(file), [words])
                inference = workspace.inference.model_copy(update={"weights": None})
                workspace = workspace.model_copy(update={"inference": inference})
            if weights is not None and workspace.inference.preset is not None:
                session.registry.adopt(workspace.inference.preset.name, weights)
            resolved = resolve(workspace, session.registry, _config(document, found, serving_config))
        _say(document_name(file), _warnings(document, found, serving_config, resolved))
        return resolved

    edits = Edits(file, read) if file != Path("-") else None  # made first: an edit while the model loads counts
    raise typer.Exit(serve_locally(read(), session.settings, port=port, weights=weights, images=images, edits=edits))
