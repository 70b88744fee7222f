"""Turns a pod template into commands for this machine: volumes become folders, and paths in commands are translated.

Nothing is started here.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.api.fetching import SECRET_VARIABLE
from kaito_core.api.serving import ADAPTERS_PATH
from kaito_core.builtin.commands import copy_folder
from kaito_core.builtin.image import DATA_FOLDER
from kaito_core.errors import ConfigError
from kaito_core.local.images import unpack_data
from kaito_core.reconcile.objects.podspec import ADAPTER_VARIABLE, RUNTIME_CONTAINER

__all__ = ["WEIGHTS_STEP", "Command", "LocalPod", "local_pod"]

WEIGHTS_STEP = "weights"
#: Programs of ours, run by the Python that runs this one.
_MODULES = {"kaito-runtime": "kaito_runtime", "kaito-fetch": "kaito_core.fetch"}


@dataclass(frozen=True, slots=True)
class Command:
    """What one container runs.

    Attributes:
        name: Name of the container.
        argv: The program and its arguments.
        env: Environment variables, added to those of this process.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod on this machine.

    Attributes:
        steps: The init containers, to run one after the other.
        runtime: The server, to run when they are done.
        adapters: The folder into which the steps put the adapters.
        config: Text of each file that the server reads again when it changes.
    """

    steps: tuple[Command, ...]
    runtime: Command
    adapters: Path
    config: Mapping[Path, str] = field(default_factory=dict)

    def write_config(self) -> None:
        """Writes the files of `config`, each as a whole or not at all."""
        for path, text in self.config.items():
            path.parent.mkdir(exist_ok=True)
            scratch = path.with_name(f".{path.name}.new")
            scratch.write_text(text)
            scratch.replace(path)


def local_pod(
    manifests: Sequence[KubeObject],
    folder: Path,
    *,
    variables: Mapping[str, str],
    images: Mapping[str, Path],
    weights: Path,
    fetch_weights: bool,
) -> LocalPod:
    """Returns the commands of a workload. `folder` may have the volumes of an earlier version of it.

    Args:
        manifests: What the operator would create, the workload last.
        folder: Where volumes and images go; its path must not have characters that are special to a shell.
        variables: Values for environment variables that the containers have.
        images: Images on this machine, by reference.
        weights: The weights, which take the place of their volume: a folder or a GGUF file.
        fetch_weights: Whether the step that downloads the weights is included.

    Raises:
        ConfigError: A container needs an image or a volume that this machine does not have.
    """
    spec = manifests[-1]["spec"]["template"]["spec"]
    maps = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    volumes = {volume["name"]: _volume(volume, folder / "volumes") for volume in spec["volumes"]}
    config = {
        volumes[volume["name"]] / key: text
        for volume in spec["volumes"]
        if "configMap" in volume
        for key, text in maps.get(volume["configMap"]["name"], {}).items()
    }
    volumes["weights"] = weights
    runtime_image = spec["containers"][0]["image"]
    steps = []
    for container in spec["initContainers"]:
        if container["name"] == WEIGHTS_STEP and not fetch_weights:
            continue
        paths = _paths(container, volumes)
        if container["image"] != runtime_image:
            if _copies_data(container) and container["image"] not in images:
                steps.append(_pull(container, paths))
                continue
            paths[DATA_FOLDER] = _data(container, images, folder / "images")
        steps.append(_command(container, paths, variables))
    (runtime,) = (c for c in spec["containers"] if c["name"] == RUNTIME_CONTAINER)
    pod = LocalPod(tuple(steps), _command(runtime, _paths(runtime, volumes), variables), volumes["adapters"], config)
    if not all(path.exists() for path in config):  # a later version is written when its adapters are there
        pod.write_config()
    return pod


def _volume(volume: Mapping[str, Any], root: Path) -> Path:
    path = root / str(volume["name"])
    root.mkdir(parents=True, exist_ok=True)
    if "hostPath" in volume:
        origin = Path(volume["hostPath"]["path"])
        if not origin.exists():
            raise ConfigError(f"volume '{volume['name']}': '{origin}' does not exist on this machine")
        path.unlink(missing_ok=True)
        path.symlink_to(origin)  # the user's path may have spaces, and this one goes into a shell command
        return path
    if "configMap" in volume or "emptyDir" in volume:
        path.mkdir(exist_ok=True)
        return path
    kind = next((key for key in volume if key != "name"), "nothing")
    raise ConfigError(
        f"volume '{volume['name']}' is a {kind}, which only a cluster has; kaito up supports emptyDir, configMap and "
        "hostPath"
    )


def _paths(container: Mapping[str, Any], volumes: Mapping[str, Path]) -> dict[str, Path]:
    return {m["mountPath"]: volumes[m["name"]] / m.get("subPath", "") for m in container.get("volumeMounts", [])}


def _folder(container: Mapping[str, Any]) -> str:
    """Returns the folder of the adapter that a container fetches, "name/revision"."""
    named = (str(v["value"]) for v in container.get("env", []) if v["name"] == ADAPTER_VARIABLE)
    return next(named, str(container["name"]))


def _copies_data(container: Mapping[str, Any]) -> bool:
    """Returns whether a container only copies /data, which needs nothing else of its image."""
    return tuple(container["command"]) == copy_folder(DATA_FOLDER, f"{ADAPTERS_PATH}/{_folder(container)}")


def _pull(container: Mapping[str, Any], paths: Mapping[str, Path]) -> Command:
    """Returns the command that pulls an adapter's image from its registry, with the login of docker if there is one."""
    reference = str(container["image"])
    target = _translated(f"{ADAPTERS_PATH}/{_folder(container)}", paths)
    env = {}
    with suppress(OSError, UnicodeDecodeError):
        env[".dockerconfigjson"] = (Path.home() / ".docker" / "config.json").read_text()
    host = reference.partition("/")[0].partition(":")[0]
    if host in ("localhost", "127.0.0.1"):  # a registry of one's own, as docker has it
        env |= {"KAITO_FETCH_HTTP": "true", "KAITO_FETCH_PRIVATE_HOSTS": "localhost,127.0.0.0/8,::1"}
    argv = (sys.executable, "-m", _MODULES["kaito-fetch"], f"image://{reference}", target)
    return Command(container["name"], argv, env)


def _data(container: Mapping[str, Any], images: Mapping[str, Path], root: Path) -> Path:
    """Returns /data of the image of an adapter, unpacked. Images are not run."""
    reference = container["image"]
    if not _copies_data(container):
        raise ConfigError(
            f"adapter '{_folder(container).partition('/')[0]}' is fetched by a program in the image '{reference}', and "
            "kaito up runs no images; fetch it yourself and name its folder as source.uri: file:FOLDER"
        )
    return unpack_data(reference, images[reference], root / container["name"])


def _translated(text: str, paths: Mapping[str, Path]) -> str:
    """Returns a text with the paths of the container replaced by local ones; "/database" is not under "/data"."""
    mounts = sorted(paths, key=len, reverse=True)
    pattern = "|".join(rf"(?<![\w./-]){re.escape(mount)}(?![\w-]|\.\w)" for mount in mounts)
    return re.sub(pattern, lambda match: str(paths[match[0]]), text) if mounts else text


def _command(container: Mapping[str, Any], paths: Mapping[str, Path], variables: Mapping[str, str]) -> Command:
    # Values from Secrets are left out: if the user has set a variable of that name, the command inherits it.
    left_out = ("HOME", SECRET_VARIABLE)
    given = {v["name"]: v["value"] for v in container.get("env", []) if "value" in v and v["name"] not in left_out}
    env = {name: _translated(value, paths) for name, value in given.items()} | {
        name: value for name, value in variables.items() if name in given
    }
    words = [*container.get("command", []), *container.get("args", [])]
    argv = [_translated(re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), word), paths) for word in words]
    if argv[0] in _MODULES:
        argv[:1] = [sys.executable, "-m", _MODULES[argv[0]]]
    return Command(container["name"], tuple(argv), env)
