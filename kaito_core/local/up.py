"""`kaito up`: checks that a Workspace can be served on this machine, and hands its pod to the supervisor."""

import asyncio
import importlib.util
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kaito_core.api import ModelPreset, NodeState
from kaito_core.errors import ConfigError
from kaito_core.local.edits import Edits
from kaito_core.local.machine import check_machine, this_machine
from kaito_core.local.pod import LocalPod, local_pod
from kaito_core.local.supervisor import run_pod
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import Resolved
from kaito_core.settings import Settings

__all__ = ["serve_locally"]

_HOST = "127.0.0.1"
_DRAIN_SECONDS = 30


def serve_locally(
    resolved: Resolved,
    settings: Settings,
    *,
    port: int,
    weights: Path | None,
    images: Mapping[str, Path],
    edits: Edits | None = None,
) -> int:
    """Serves a Workspace until Ctrl-C, and returns the exit status.

    Args:
        resolved: The Workspace with its preset and adapters.
        settings: Settings, as the operator would have them.
        port: Port of the API; 0 picks a free one.
        weights: A Hugging Face folder or a GGUF file; None: the preset's weights, downloaded if necessary.
        images: Images on this machine, by reference.
        edits: The Workspace's file, whose edits are applied while it is served; None: there is none.

    Raises:
        ConfigError: The Workspace cannot be served here, for instance because this machine is too small. Nothing was
            downloaded or started.
    """
    preset = resolved.preset
    if preset is None:
        raise ConfigError("inference.template cannot be served here: kaito up serves presets, and runs no images")
    if importlib.util.find_spec("kaito_runtime") is None:
        raise ConfigError("the runtime is not installed: pip install 'kaito-runtime[torch]'")
    port = _free_port(port)
    place, download = _weights(resolved, preset, weights)
    warning = check_machine(preset, this_machine(place), place, download=download)
    notes = [note for note in (_one_process(preset), warning) if note]
    # One machine, one process: the runtime uses a GPU if it finds one, and the CPU otherwise.
    alone = preset.model_copy(update={"distributed": False, "gpus": 0, "gpu_memory_gib": 0.0})
    if resolved.options.api_key_secret:
        notes.append("note: api-key-secret of inference.config is not used here: requests need no key")
    with tempfile.TemporaryDirectory(prefix="kaito-", dir=_plain_folder()) as folder:

        def planned(wanted: Resolved) -> tuple[LocalPod, list[str]]:
            variables = [entry for entry in wanted.pod.get("env", ()) if "valueFrom" not in entry]
            options = wanted.options.without("api-key-secret")
            # All else is about a cluster.
            local = replace(wanted, preset=alone, machines=(), pod={"env": variables}, options=options)
            pod = local_pod(
                desired(local, NodeState(()), settings).objects,
                Path(folder),
                variables={"KAITO_HOST": _HOST, "KAITO_PORT": str(port), "KAITO_DRAIN_SECONDS": str(_DRAIN_SECONDS)},
                images=images,
                weights=place,
                fetch_weights=download,
            )
            return pod, [adapter.ref.folder for adapter in wanted.adapters]

        def update() -> tuple[LocalPod, list[str]] | None:
            found = edits.next(resolved) if edits is not None else None
            return planned(found) if found is not None else None

        pod, folders = planned(resolved)
        following = () if edits is None else (update,)
        return asyncio.run(run_pod(pod, preset, folders, f"http://{_HOST}:{port}", notes, *following))


def _plain_folder() -> str | None:
    """Returns where temporary folders go: None for the usual place, unless a shell would not take its path as it is."""
    usual = tempfile.gettempdir()
    return None if all(c.isalnum() or c in "/._-" for c in usual) else "/tmp"


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise ConfigError(f"--port {port} cannot be used: {error.strerror}; --port 0 picks a free one") from error
        return int(probe.getsockname()[1])


def _weights(resolved: Resolved, preset: ModelPreset, given: Path | None) -> tuple[Path, bool]:
    """Returns where the weights are, or belong, and whether they must be downloaded."""
    if given is not None:
        if not given.exists():
            raise ConfigError(f"--weights: '{given}' does not exist")
        return given.resolve(), False
    if resolved.weights is not None and resolved.weights.image is not None:
        raise ConfigError(
            f"inference.preset.presetOptions.image: kaito up runs no images; copy the weights out of "
            f"'{resolved.weights.image}' and name their folder with --weights"
        )
    if preset.weights.package is not None:
        module, _, file = preset.weights.package.partition(":")
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and (path := Path(spec.origin).with_name(file)).exists():
            return path, False
    place = Path.home() / ".cache" / "kaito" / "weights" / preset.name / preset.weights.revision
    place.mkdir(parents=True, exist_ok=True)
    return place, True


def _one_process(preset: ModelPreset) -> str:
    """Returns a note for users who know the preset from a cluster, where it uses several GPUs; "" otherwise."""
    if preset.gpus < 2:
        return ""
    there = f"{preset.gpus} GPUs" + (" on several nodes" if preset.distributed else "")
    return (
        f"note: on a cluster {preset.name} uses {there}; here it is served by one process, on one GPU or on the CPU, "
        "which must hold the whole model"
    )
