"""Objects of the user's that a Workspace names, options of the server and a claim: missing, wrong, right, changed."""

from kaito_core.api import KubeObject
from scenarios.support.state import serving_config, template, uids
from scenarios.support.world import World, conditions, workspace

__all__ = ["SCENARIOS"]


def options(text: str, *, labelled: bool = True) -> KubeObject:
    """Returns the ConfigMap; one with the Workspace's label is watched."""
    labels = {"kaito.sh/workspace": "w"} if labelled else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "limits", "labels": labels},
        "data": {"inference_config.yaml": text},
    }


def a_config_map_is_waited_for_and_followed(world: World) -> None:
    inference = {"preset": {"name": "on-cpu"}, "config": "limits"}
    world.apply(workspace("w", inference=inference))

    def says(reason: str, words: str) -> bool:
        found = conditions(world.existing("workspaces", "w")).get("WorkspaceSucceeded", {})
        return found.get("reason") == reason and words in found["message"]

    world.wait("it is missing", lambda: says("ConfigMissing", "names ConfigMap 'limits', which does not exist"))
    assert world.get("deployments", "w") is None

    world.apply(options("kaito: {request-seconds: 5, context-length: 512}\nvllm: {swap-space: 4}"))
    document = world.wait_state("w", "Ready")
    assert document["status"]["unused"] == [
        "inference.config: vllm.swap-space of ConfigMap 'limits' is not used by this server"
    ]
    assert serving_config(world, "w")["model"]["contextLength"] == 512
    first = uids(world, "w")

    world.apply(options("kaito: {request-seconds: 60, context-length: 512}"))
    world.wait("the limit is written", lambda: serving_config(world, "w")["limits"]["requestSeconds"] == 60)
    document = world.wait_state("w", "Ready")
    world.wait("nothing is unused", lambda: "unused" not in world.existing("workspaces", "w")["status"])
    assert uids(world, "w") == first, "a limit ends no pod"

    world.apply(options("kaito: {request-seconds: much}"))
    world.wait("it is wrong", lambda: says("InvalidConfig", "kaito.request-seconds must be a number, got 'much'"))
    assert uids(world, "w") == first, "what runs keeps running"

    world.apply(options("kaito: {batch-requests: 4}"))
    world.wait("new pods", lambda: uids(world, "w") not in ([], first))
    world.wait_state("w", "Ready")
    (server,) = template(world, "w")["spec"]["containers"]
    assert server["command"][-2:] == ["--batch-requests", "4"]


def a_claim_is_waited_for_and_looked_at(world: World) -> None:
    inference = {"preset": {"name": "on-cpu"}, "weights": {"claim": "models"}}
    world.apply(workspace("w", inference=inference, resource={"count": 2}))

    def says(reason: str, words: str) -> bool:
        found = conditions(world.existing("workspaces", "w")).get("WorkspaceSucceeded", {})
        return found.get("reason") == reason and words in found["message"]

    world.wait("it is missing", lambda: says("ClaimMissing", "PersistentVolumeClaim 'models', which does not exist"))
    claim: KubeObject = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Gi"}}},
    }
    world.apply(claim)
    world.apply(workspace("w", inference=inference, resource={"count": 3}))  # it is read again in a minute otherwise
    world.wait("it is for one node", lambda: says("InvalidClaim", "by one node only (ReadWriteOnce), and there are 3"))
    assert world.get("deployments", "w") is None
    world.apply(workspace("w", inference=inference, resource={"count": 1}))
    world.wait_state("w", "Ready")
    volumes = template(world, "w")["spec"]["volumes"]
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "models"}} in volumes


SCENARIOS = (a_config_map_is_waited_for_and_followed, a_claim_is_waited_for_and_looked_at)
