"""What platform teams ask of pods: no privileges, a read-only root, requests, probes, an orderly end, no secrets."""

import pytest
from typer.main import get_command

from helpers.rendered import PRESETS, containers_of, late_containers, manifests, pod_of
from kaito_core.api.quantity import parse_quantity
from kaito_core.api.serving import ADAPTERS_PATH, WEIGHTS_PATH
from kaito_core.reconcile.options.serving import OPTIONS
from kaito_runtime.cli import app


@pytest.mark.parametrize("case", PRESETS)
def test_namespaces_of_the_restricted_level_take_the_pods(case: str) -> None:
    """Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, for each container."""
    for container in containers_of(case):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, container["name"]
        assert context["runAsNonRoot"] is True and context.get("runAsUser") != 0, container["name"]
        assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, container["name"]
        assert context["readOnlyRootFilesystem"] is True, container["name"]
    spec = pod_of(manifests(case))["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", PRESETS)
def test_all_containers_are_one_user_who_is_not_root(case: str) -> None:
    """The kubelet refuses images of root, and of named users, unless the pod gives a number.

    Several users could not replace one another's files in the folders that they share.
    """
    users = {(c["securityContext"]["runAsUser"], c["securityContext"]["runAsGroup"]) for c in containers_of(case)}
    assert users == {(65532, 65532)}  # what the image of the runtime is built for


@pytest.mark.parametrize("case", PRESETS)
def test_kubernetes_decides_when_an_image_is_pulled(case: str) -> None:
    """Its own rule pulls "latest" anew; a policy on some containers could give a pod two versions of one image."""
    assert [container["name"] for container in containers_of(case) if "imagePullPolicy" in container] == []


@pytest.mark.parametrize("case", PRESETS)
def test_what_has_to_be_written_can_be(case: str) -> None:
    """The root is read-only: the caches of the hub, of Triton and of torch's compiler follow HOME."""
    spec = pod_of(manifests(case))["spec"]
    writable = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    for container in containers_of(case):
        paths = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in writable and not m.get("readOnly")}
        values = {variable["name"]: variable.get("value") for variable in container.get("env", [])}
        if container["command"][0] in ("kaito-runtime", "torchrun"):
            assert values["HOME"] in paths, container["name"]
            assert "/tmp" in paths, container["name"]


@pytest.mark.parametrize("case", PRESETS)
def test_a_step_writes_its_own_files_alone(case: str) -> None:
    """Steps run images of adapters, which must change neither the model nor one another's adapters."""
    spec = pod_of(manifests(case))["spec"]
    shared = ("adapters", "weights")
    for step in spec["initContainers"]:
        (mount,) = [mount for mount in step["volumeMounts"] if mount["name"] in shared]
        if step["name"] == "weights":
            assert mount == {"name": "weights", "mountPath": WEIGHTS_PATH}
        else:
            name = step["name"].removeprefix("adapter-")
            assert mount == {"name": "adapters", "mountPath": f"{ADAPTERS_PATH}/{name}", "subPath": name}
    (runtime,) = spec["containers"]
    assert {m["name"]: m.get("readOnly") for m in runtime["volumeMounts"] if m["name"] in shared} == {
        "adapters": True,
        "weights": True,
    }
    for late in late_containers():  # the API takes no subPath there
        assert not [mount for mount in late["volumeMounts"] if mount["name"] == "weights" or "subPath" in mount]


@pytest.mark.parametrize("case", PRESETS)
def test_no_volume_fills_a_node(case: str) -> None:
    for volume in pod_of(manifests(case))["spec"]["volumes"]:
        assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], volume["name"]


@pytest.mark.parametrize("case", PRESETS)
def test_a_quota_on_requests_can_be_met(case: str) -> None:
    """With one, a pod is refused if any container, steps included, does not say what it needs."""
    spec = pod_of(manifests(case))["spec"]
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), container["name"]
    (runtime,) = spec["containers"]
    for step in spec["initContainers"]:  # so that they cost nothing extra
        for resource, amount in step["resources"]["requests"].items():
            assert parse_quantity(amount) <= parse_quantity(runtime["resources"]["requests"][resource])


@pytest.mark.parametrize("case", PRESETS)
def test_the_end_of_a_log_becomes_the_reason(case: str) -> None:
    assert {container["terminationMessagePolicy"] for container in containers_of(case)} == {"FallbackToLogsOnError"}


@pytest.mark.parametrize("case", PRESETS)
def test_a_pod_drains_before_it_is_killed(case: str) -> None:
    spec = pod_of(manifests(case))["spec"]
    (runtime,) = spec["containers"]
    env = {variable["name"]: variable["value"] for variable in runtime["env"]}
    pause = runtime["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pause >= 1
    assert pause + int(env["KAITO_DRAIN_SECONDS"]) < spec["terminationGracePeriodSeconds"]
    assert runtime["command"][-2:] == ["--drain-seconds", "$(KAITO_DRAIN_SECONDS)"]


@pytest.mark.parametrize("case", PRESETS)
def test_probes_are_within_the_apis_limits(case: str) -> None:
    (runtime,) = pod_of(manifests(case))["spec"]["containers"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = runtime[kind]
        for number in ("failureThreshold", "periodSeconds", "timeoutSeconds", "successThreshold"):
            assert probe.get(number, 1) >= 1, (kind, number)
    assert runtime["livenessProbe"].get("successThreshold", 1) == 1


def test_a_token_is_in_no_argument() -> None:
    (hub,) = [container for container in late_containers() if "adapter-hub" in container["name"]]
    reference = {"name": "hub", "key": "HF_TOKEN"}
    assert {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}} in hub["env"]
    assert not [word for word in hub["command"] if "TOKEN" in word]


def test_every_flag_that_a_config_map_sets_is_one_of_the_server() -> None:
    known = {name for param in get_command(app).commands["serve"].params for name in param.opts}  # type: ignore[attr-defined]
    assert {f"--{option.name}" for option in OPTIONS if option.where == "flag"} <= known
    assert {"--api-key-file", "--open-status"} <= known
