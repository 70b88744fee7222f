"""The commands that take Workspaces: validate, render and up."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kaito_core.api import KubeObject, NodeState, parse_workspace
from kaito_core.api.workspace.model import PROVIDER_ANNOTATION
from kaito_core.api.yaml_text import dump_yaml
from kaito_core.builtin.scheduler import SCHEDULER
from kaito_core.cli.documents import FilesArgument, FilesOption, document_name, given_files, read_workspaces
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
    output: ReportOption = ReportFormat.text,
) -> None:
    """Check Workspaces as the operator does, plugins included. Exit with status 1 if one is wrong.

    With -o json or yaml there is a record for each fault, and one with "error": null for each valid Workspace.
    """
    session: Session = context.obj
    rows = [row for file in given_files(files, filename) for row in _checked(session, file)]
    if output is ReportFormat.text:
        for row in rows:
            found = " ".join(filter(None, (row["field"], row["error"])))
            print(f"{row['file']}: {found or f'''Workspace '{row['workspace']}' is valid'''}")
    else:
        print_data(rows, output)
    raise typer.Exit(1 if any(row["error"] for row in rows) else 0)


def _checked(session: Session, path: Path) -> Iterator[dict[str, Any]]:
    """Yields the faults of a file's Workspaces, and for each valid one a row without an error."""
    file = document_name(path)
    try:
        documents = read_workspaces(path)
    except ConfigError as error:
        yield {"file": file, "workspace": None, "field": None, "error": str(error).removeprefix(f"{file}: ")}
        return
    for document in documents:
        metadata = document.get("metadata") if isinstance(document, dict) else None
        name = metadata.get("name") if isinstance(metadata, dict) else None
        row = {"file": file, "workspace": None if name is None else str(name), "field": None, "error": None}
        try:
            resolved, _ = _objects(session, document)
        except WorkspaceError as error:
            yield from ({**row, "field": fault.field or None, "error": fault.message} for fault in error.errors)
        else:
            _say(file, resolved)
            yield row


def _say(file: str, resolved: Resolved) -> None:
    """Prints how fields that are right were understood; not where programs read."""
    for notice in resolved.notices:
        print(f"{file}: warning: {notice}", file=sys.stderr)


def _objects(session: Session, document: object) -> tuple[Resolved, tuple[KubeObject, ...]]:
    """Returns what plugins know about a Workspace, and what is created for it on machines of the type that it names.

    Raises:
        WorkspaceError: The Workspace is wrong.
    """
    resolved = resolve(parse_workspace(document), session.registry)
    workspace = resolved.workspace
    sku = session.registry.sku(workspace.resource.instance_type)
    provider = workspace.metadata.annotations.get(PROVIDER_ANNOTATION) or session.settings.node_provider
    nodes = NodeState((), sku=sku, pods_first=provider == SCHEDULER)
    return resolved, desired(resolved, nodes, session.settings).objects


def render(context: typer.Context, files: FilesArgument = None, filename: FilesOption = None) -> None:
    """Print the objects that the operator creates for Workspaces."""
    objects: list[KubeObject] = []
    for file in given_files(files, filename):
        for document in read_workspaces(file):
            with _named(file):
                resolved, made = _objects(context.obj, document)
                _say(document_name(file), resolved)
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
        documents = read_workspaces(file)
        if len(documents) > 1:
            name = document_name(file)
            raise ConfigError(f"{name}: expected one Workspace, got {len(documents)}; kaito up serves one")
        with _named(file):
            workspace = parse_workspace(documents[0])
            if weights is not None and workspace.inference.preset is not None:
                session.registry.adopt(workspace.inference.preset.name, weights)
            resolved = resolve(workspace, session.registry)
        _say(document_name(file), resolved)
        return resolved

    edits = Edits(file, read) if file != Path("-") else None  # made first: an edit while the model loads counts
    raise typer.Exit(serve_locally(read(), session.settings, port=port, weights=weights, images=images, edits=edits))
