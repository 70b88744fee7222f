"""The commands install and crd, which print what a cluster needs, and uninstall."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from kaito_core.api.yaml_text import dump_yaml
from kaito_core.cli.cluster.connection import KubeconfigOption, cluster_packages, on_cluster
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError

__all__ = ["crd", "install", "uninstall"]

if TYPE_CHECKING:
    from kaito_core.controller.cluster import KubernetesCluster


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
            metavar="NAME=VALUE",
            help="A variable of the operator: a setting (KAITO_...), or any other. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    pod_env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A variable of every container that fetches or serves, such as HTTPS_PROXY, NO_PROXY or HF_ENDPOINT. "
            "Can be repeated.",
            show_default=False,
        ),
    ] = None,
    ca_bundle: Annotated[
        str,
        typer.Option(
            metavar="CONFIGMAP[/KEY]",
            help="ConfigMap with the authorities that these containers trust; it must be in each namespace of "
            "Workspaces. Default of KEY: ca.crt.",
            show_default=False,
        ),
    ] = "",
    webhook: Annotated[
        bool, typer.Option("--webhook", help="Check Workspaces with an admission webhook before they are stored.")
    ] = False,
) -> None:
    """Print the manifests that install the operator. For `kubectl apply -f -`."""
    from kaito_core.controller.install.environment import pod_variables
    from kaito_core.controller.install.manifests import installation

    session: Session = context.obj
    watches = session.registry.watched_types()
    variables = _variables("--env", env or [])
    defaults = pod_variables(variables.get("KAITO_POD_DEFAULTS", ""), _variables("--pod-env", pod_env or []), ca_bundle)
    if defaults:
        variables["KAITO_POD_DEFAULTS"] = defaults
    manifests = installation(namespace=namespace, image=image, watches=watches, env=variables, webhook=webhook)
    sys.stdout.write(dump_yaml(manifests))
    made = {namespace, *(item["metadata"]["name"] for item in manifests if item["kind"] == "Namespace")}
    missing = sorted({item["metadata"].get("namespace", namespace) for item in manifests} - made)
    if missing:
        typer.echo(f"these namespaces must exist before it is applied: {', '.join(missing)}", err=True)


def uninstall(
    namespace: Annotated[str, typer.Option(help="Namespace of the operator.")] = "kaito-system",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete the Workspaces without asking.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="Longest wait for the Workspaces to go, in seconds.")] = 900,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Delete the operator, after its Workspaces.

    It waits until the machines of the Workspaces are given back. If it is interrupted, run it again. The namespace
    stays, and so do Workspaces that another operator serves.
    """
    with cluster_packages("kaito uninstall"):
        from kaito_core.controller.install.uninstall import find_installed, remove_operator, remove_workspaces

    async def work(cluster: "KubernetesCluster") -> None:
        found = await find_installed(cluster, namespace)
        names = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found.workspaces]
        if names and not yes:
            typer.echo(f"Workspaces that will be deleted, with what serves them: {', '.join(names)}", err=True)
            if not sys.stdin.isatty():
                raise ConfigError("kaito uninstall deletes Workspaces: confirm it with --yes")
            typer.confirm("Delete them?", abort=True, err=True)
        await remove_workspaces(cluster, found, typer.echo, timeout_seconds=timeout)
        await remove_operator(cluster, found, typer.echo)

    on_cluster("kaito uninstall", kubeconfig, work)


def _variables(option: str, values: list[str]) -> dict[str, str]:
    variables = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name or not equals:
            raise ConfigError(f"{option} must be NAME=VALUE, got '{value}'")
        variables[name] = text
    return variables
