"""A real API server judges our CRD; tests/contract compares with its verdict where there is no such server."""

import copy
from datetime import UTC, datetime

from helpers.crd_record import digest, read_record, write_record
from kaito_core.api.workspace.crd import workspace_crd
from kaito_testing.world.client import KubeClient


def test_the_crd_is_accepted(api_server: KubeClient) -> None:
    """The record is written anew where the CRD is another one than the recorded."""
    crd = copy.deepcopy(workspace_crd())
    version = api_server.request("GET", "/version")["gitVersion"]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workspaces.kaito.sh"
    query = {"dryRun": "All", "fieldManager": "test", "force": "true", "fieldValidation": "Strict"}
    api_server.request("PATCH", path, crd, query=query, content_type="application/apply-patch+yaml")
    if read_record().get("sha256") != digest(crd):
        write_record(
            sha256=digest(crd),
            verdict="accepted",
            by=f"an API server of Kubernetes {version.removeprefix('v')}",
            date=datetime.now(UTC).date().isoformat(),
            commit="the one that changed this file",
        )
