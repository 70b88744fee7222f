"""The commands that take Workspaces: up, validate, render; and install, chat and crd."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kaito_core.api import KubeObject, NodeState, parse_workspace
from kaito_core.api.yaml_text import dump_yaml
from kaito_core.cli.documents import read_workspaces
from kaito_core.cli.output import Format, FormatOption, print_records
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError, FieldError, WorkspaceError
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import resolve

__all__ = ["chat", "crd", "install", "render", "up", "validate"]

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with a Workspace.", show_default=False)]
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="YAML files with Workspaces.", show_default=False)
]


def _pairs(option: str, values: list[str]) -> dict[str, Path]:
    pairs = {}
    for value in values:
        name, separator, path = value.rpartition("=")
        if not separator or not name or not path:
            raise ConfigError(f"{option} must be REF=PATH, got '{value}'")
        pairs[name] = Path(path)
    return pairs


def up(
    context: typer.Context,
    file: FileArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0 picks a free one.")] = 5000,
    weights: Annotated[
        Path | None,
        typer.Option(help="Weights on this machine: a Hugging Face folder or a GGUF file.", show_default=False),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF=PATH",
            help="An image on this machine: an OCI layout or a `docker save` archive. Can be repeated.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve a Workspace on this machine: no cluster and no GPU needed. Ctrl-C ends it."""
    from kaito_core.local.up import serve_locally

    session: Session = context.obj
    documents = read_workspaces(file)
    if len(documents) > 1:
        raise ConfigError(f"{file}: holds {len(documents)} Workspaces; kaito up serves one, so give it a file with one")
    workspace = parse_workspace(documents[0])
    if weights is not None and workspace.inference.preset is not None:
        session.registry.adopt(workspace.inference.preset.name, weights)
    resolved = resolve(workspace, session.registry)
    status = serve_locally(
        resolved, session.settings, port=port, weights=weights, images=_pairs("--image", image or [])
    )
    raise typer.Exit(status)


def validate(context: typer.Context, files: FilesArgument, output: FormatOption = Format.table) -> None:
    """Check Workspaces as the operator would, plugins included; exit with status 1 if one is wrong."""
    session: Session = context.obj
    rows = []
    for file in files:
        try:
            documents = read_workspaces(file)
        except ConfigError as error:
            rows.append({"file": str(file), "workspace": "", "field": "", "error": str(error)})
            continue
        for document in documents:
            name, errors = _check(session, document)
            rows += [
                {"file": str(file), "workspace": name, "field": error.field, "error": error.message} for error in errors
            ] or [{"file": str(file), "workspace": name, "field": "", "error": ""}]
    if output is Format.table:
        for row in rows:
            where = " ".join(filter(None, (row["field"], row["error"])))
            prefix = "" if row["error"].startswith(f"{row['file']}:") else f"{row['file']}: "
            print(f"{prefix}{where}" if row["error"] else f"{prefix}Workspace '{row['workspace']}' is valid")
    else:
        print_records(rows, {}, output)
    raise typer.Exit(1 if any(row["error"] for row in rows) else 0)


def _check(session: Session, document: object) -> tuple[str, tuple[FieldError, ...]]:
    metadata = document.get("metadata") if isinstance(document, dict) else None
    name = str(metadata.get("name", "")) if isinstance(metadata, dict) else ""
    try:
        resolved = resolve(parse_workspace(document), session.registry)
        sku = session.registry.sku(resolved.workspace.resource.instance_type)
        desired(resolved, NodeState((), sku=sku), session.settings)
    except WorkspaceError as error:
        return name, error.errors
    return name, ()


def render(context: typer.Context, files: FilesArgument) -> None:
    """Print the objects that the operator creates for Workspaces, as YAML."""
    session: Session = context.obj
    objects: list[KubeObject] = []
    for file in files:
        for document in read_workspaces(file):
            resolved = resolve(parse_workspace(document), session.registry)
            sku = session.registry.sku(resolved.workspace.resource.instance_type)
            objects += desired(resolved, NodeState((), sku=sku), session.settings).objects
    sys.stdout.write(dump_yaml(objects))


def crd() -> None:
    """Print the CustomResourceDefinition of the Workspace, for `kubectl apply -f -`."""
    from kaito_core.api.workspace.crd import crd_yaml

    sys.stdout.write(crd_yaml())


def install(
    context: typer.Context,
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "kaito-system",
    image: Annotated[str, typer.Option(help="Image of the operator; default: ours.", show_default=False)] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A setting of the operator. Can be repeated.", show_default=False),
    ] = None,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="Let the API server ask the operator before it takes a Workspace.")
    ] = False,
) -> None:
    """Print everything that runs the operator on a cluster, for `kubectl apply -f -`."""
    from kaito_core.controller.install.manifests import installation

    session: Session = context.obj
    watches = [watch for provider in session.registry.providers.values() for watch in provider.watches]
    manifests = installation(
        namespace=namespace, image=image, watches=watches, env=_variables(env or []), webhook=webhook
    )
    sys.stdout.write(dump_yaml(manifests))


def _variables(values: list[str]) -> dict[str, str]:
    variables = dict(value.partition("=")[::2] for value in values)
    if wrong := next((value for value in values if not value.startswith("KAITO_") or "=" not in value), None):
        raise ConfigError(f"--env must be KAITO_NAME=VALUE, got '{wrong}'")
    return variables


def chat(
    url: Annotated[str, typer.Option(help="Where the model is served.")] = "http://127.0.0.1:5000",
    model: Annotated[str, typer.Option(help="Model id; default: the Workspace's own mix.", show_default=False)] = "",
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=STRENGTH",
            help="Adapters for this chat instead of the model's. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="Ask this and exit instead of chatting.", show_default=False)
    ] = "",
) -> None:
    """Chat with a served model."""
    from kaito_core.local.chat import chat as converse

    adapters = None if adapter is None else {name: str(value) for name, value in _pairs("--adapter", adapter).items()}
    converse(url, model, adapters, prompt)
