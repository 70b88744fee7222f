"""A pod template as commands for this machine: volumes become folders, and paths and variables are translated.

Nothing is started here.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.errors import ConfigError
from kaito_core.local.images import unpack_data
from kaito_core.reconcile.podspec import ADAPTER_VARIABLE, RUNTIME_CONTAINER

__all__ = ["Command", "LocalPod", "local_pod"]

WEIGHTS_STEP = "weights"
_RUNTIME = "kaito-runtime"


@dataclass(frozen=True, slots=True)
class Command:
    """One process.

    Attributes:
        name: Name of its container.
        argv: What runs.
        env: Environment on top of this process's own.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod on this machine.

    Attributes:
        steps: Run one after the other.
        runtime: Runs when they are done.
        adapters: Where the steps leave the adapters.
    """

    steps: tuple[Command, ...]
    runtime: Command
    adapters: Path


def local_pod(
    manifests: Sequence[KubeObject],
    folder: Path,
    *,
    variables: Mapping[str, str],
    images: Mapping[str, Path],
    weights: Path,
    fetch_weights: bool,
) -> LocalPod:
    """Returns the commands of the workload among the manifests.

    Args:
        manifests: What the operator would create, the workload last.
        folder: For volumes and images; its path has no character that a shell minds.
        variables: Values that replace those of the containers' environment.
        images: Images on this machine, by reference.
        weights: What stands for the volume of the weights, a folder or a GGUF file.
        fetch_weights: Whether the step that fetches weights runs.

    Raises:
        ConfigError: A volume or image cannot be had on this machine.
    """
    spec = manifests[-1]["spec"]["template"]["spec"]
    config = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    volumes = {volume["name"]: _volume(volume, folder / "volumes", config) for volume in spec["volumes"]}
    volumes["weights"] = weights
    runtime_image = spec["containers"][0]["image"]
    steps = []
    for container in spec["initContainers"]:
        if container["name"] == WEIGHTS_STEP and not fetch_weights:
            continue
        paths = _paths(container, volumes)
        if container["image"] != runtime_image:
            paths["/data"] = _data(container, images, folder / "images")
        steps.append(_command(container, paths, variables))
    (runtime,) = (c for c in spec["containers"] if c["name"] == RUNTIME_CONTAINER)
    return LocalPod(tuple(steps), _command(runtime, _paths(runtime, volumes), variables), volumes["adapters"])


def _volume(volume: Mapping[str, Any], root: Path, config: Mapping[str, Mapping[str, str]]) -> Path:
    path = root / str(volume["name"])
    root.mkdir(parents=True, exist_ok=True)
    if "hostPath" in volume:
        origin = Path(volume["hostPath"]["path"])
        if not origin.exists():
            raise ConfigError(f"volume '{volume['name']}': '{origin}' does not exist on this machine")
        path.symlink_to(origin)  # so that no path of the user's, with spaces perhaps, gets into a shell command
        return path
    if "configMap" in volume:
        path.mkdir()
        for key, text in config[volume["configMap"]["name"]].items():
            (path / key).write_text(text)
        return path
    if "emptyDir" in volume:
        path.mkdir()
        return path
    kind = next((key for key in volume if key != "name"), "nothing")
    raise ConfigError(
        f"volume '{volume['name']}' is of the kind {kind}, which this machine does not have; kaito up knows emptyDir, "
        "configMap and hostPath"
    )


def _paths(container: Mapping[str, Any], volumes: Mapping[str, Path]) -> dict[str, Path]:
    # Joining "" leaves a path as it is.
    return {m["mountPath"]: volumes[m["name"]] / m.get("subPath", "") for m in container.get("volumeMounts", [])}


def _data(container: Mapping[str, Any], images: Mapping[str, Path], root: Path) -> Path:
    reference = container["image"]
    adapter = next((v["value"] for v in container.get("env", []) if v["name"] == ADAPTER_VARIABLE), container["name"])
    if reference not in images:
        raise ConfigError(
            f"adapter '{adapter.partition('/')[0]}': the image '{reference}' is not on this machine; save it with "
            f"`docker save {reference} -o image.tar` and give --image {reference}=image.tar"
        )
    return unpack_data(reference, images[reference], root / container["name"])


def _translated(text: str, paths: Mapping[str, Path]) -> str:
    """Returns a text with each container path replaced by the local one; "/database" is not below "/data"."""
    mounts = sorted(paths, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w./-]){re.escape(mount)}(?![\w-]|\.\w)" for mount in mounts)
    return re.sub(pattern, lambda match: str(paths[match[0]]), text) if mounts else text


def _command(container: Mapping[str, Any], paths: Mapping[str, Path], variables: Mapping[str, str]) -> Command:
    # A secret's value is not known here: the variable of the same name is, if the user has set it.
    given = {v["name"]: v["value"] for v in container.get("env", []) if "value" in v and v["name"] != "HOME"}
    env = {name: _translated(value, paths) for name, value in given.items()} | {
        name: value for name, value in variables.items() if name in given
    }
    words = [*container.get("command", []), *container.get("args", [])]
    argv = [_translated(re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), word), paths) for word in words]
    if argv[0] == _RUNTIME:
        argv[:1] = [sys.executable, "-m", "kaito_runtime"]
    return Command(container["name"], tuple(argv), env)
