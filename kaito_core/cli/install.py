"""The commands that print what a cluster needs: install and crd."""

import sys
from typing import Annotated

import typer

from kaito_core.api.yaml_text import dump_yaml
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError

__all__ = ["crd", "install"]


def crd() -> None:
    """Print the CustomResourceDefinition of the Workspace. For `kubectl apply -f -`."""
    from kaito_core.api.workspace.crd import crd_yaml

    sys.stdout.write(crd_yaml())


def install(
    context: typer.Context,
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "kaito-system",
    image: Annotated[
        str, typer.Option(help="Image of the operator; default: the one of this version.", show_default=False)
    ] = "",
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KAITO_NAME=VALUE", help="A setting of the operator. Can be repeated.", show_default=False
        ),
    ] = None,
    webhook: Annotated[
        bool, typer.Option("--webhook", help="Check Workspaces with an admission webhook before they are stored.")
    ] = False,
) -> None:
    """Print the manifests that install the operator. For `kubectl apply -f -`."""
    from kaito_core.controller.install.manifests import installation

    session: Session = context.obj
    watches = [watch for provider in session.registry.providers.values() for watch in provider.watches]
    manifests = installation(
        namespace=namespace, image=image, watches=watches, env=_variables(env or []), webhook=webhook
    )
    sys.stdout.write(dump_yaml(manifests))


def _variables(values: list[str]) -> dict[str, str]:
    variables = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name.startswith("KAITO_") or not equals:
            raise ConfigError(f"--env must be KAITO_NAME=VALUE, got '{value}'")
        variables[name] = text
    return variables
