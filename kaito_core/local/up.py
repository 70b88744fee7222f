"""Serving a Workspace on this machine: the steps, the runtime, the first real request, and the end."""

import asyncio
import importlib.util
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import httpx
from rich.console import Console

from kaito_core.api import ModelPreset, NodeState
from kaito_core.errors import ConfigError
from kaito_core.local.pod import Command, LocalPod, local_pod
from kaito_core.local.process import Process
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import Resolved
from kaito_core.settings import Settings

__all__ = ["serve_locally"]

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.25
_DRAIN_SECONDS = 30
_NEWS_SECONDS = 10.0


def serve_locally(
    resolved: Resolved,
    settings: Settings,
    *,
    port: int,
    weights: Path | None,
    images: Mapping[str, Path],
) -> int:
    """Serves a Workspace until Ctrl-C, and returns the exit status.

    Raises:
        ConfigError: Something that it needs is not on this machine; nothing was started.
    """
    preset = resolved.preset
    if preset is None:
        raise ConfigError("inference.template cannot run here: kaito up serves presets, kubectl runs templates")
    if importlib.util.find_spec("kaito_runtime") is None:
        raise ConfigError("the runtime is not installed: pip install 'kaito-runtime[torch]'")
    port = _free_port(port)
    place, fetch = _weights(preset, weights)
    # One machine, one process: the runtime takes a GPU where there is one, and the CPU otherwise.
    alone = preset.model_copy(update={"distributed": False, "gpus": 0, "gpu_memory_gib": 0.0})
    local = replace(resolved, preset=alone, machines=())
    with tempfile.TemporaryDirectory(prefix="kaito-", dir=_plain_folder()) as folder:
        pod = local_pod(
            desired(local, NodeState(()), settings).objects,
            Path(folder),
            variables={"KAITO_HOST": _HOST, "KAITO_PORT": str(port), "KAITO_DRAIN_SECONDS": str(_DRAIN_SECONDS)},
            images=images,
            weights=place,
            fetch_weights=fetch,
        )
        folders = [adapter.ref.folder for adapter in resolved.adapters]
        return asyncio.run(_run(pod, preset, folders, f"http://{_HOST}:{port}"))


def _plain_folder() -> str | None:
    """Returns where temporary folders go; None for the usual place, if a shell minds no character of it."""
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


def _weights(preset: ModelPreset, given: Path | None) -> tuple[Path, bool]:
    """Returns where the weights are or will be, and whether they have to be fetched."""
    if given is not None:
        if not given.exists():
            raise ConfigError(f"--weights: '{given}' does not exist")
        return given.resolve(), False
    if preset.weights.package is not None:
        module, _, file = preset.weights.package.partition(":")
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and (path := Path(spec.origin).with_name(file)).exists():
            return path, False
    place = Path.home() / ".cache" / "kaito" / "weights" / preset.name / preset.weights.revision
    place.mkdir(parents=True, exist_ok=True)
    return place, True


class _Voice:
    """Says things on stderr, with a spinner on a terminal; stdout stays for what programs read."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text)


def _missing_adapter(pod: LocalPod, folders: Iterable[str]) -> str:
    """Returns what is wrong with an adapter whose step has run and left nothing to load, or ""."""
    for folder in folders:
        if not (pod.adapters / folder / "adapter_config.json").is_file():
            name = folder.partition("/")[0]
            return f"adapter '{name}': its source has no adapter_config.json; it must hold a folder that PEFT saved"
    return ""


def _smaller_than_asked(preset: ModelPreset) -> str:
    """Returns what whoever knows the preset from a cluster would not expect of this machine, or ""."""
    if preset.gpus < 2:
        return ""
    there = f"{preset.gpus} GPUs" + (" on several nodes" if preset.distributed else "")
    return (
        f"note: in a cluster {preset.name} takes {there}; here one process serves it, on one GPU or, without any, on "
        "the CPU, and the whole model must fit there"
    )


async def _run(pod: LocalPod, preset: ModelPreset, folders: Iterable[str], url: str) -> int:
    voice, stop = _Voice(), asyncio.Event()
    if note := _smaller_than_asked(preset):
        voice.say(note)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    try:
        for step in pod.steps:
            status = await _step(step, voice, stopping)
            if status is None:
                return 0
            if status:
                voice.say(f"error: the step '{step.name}' failed with exit status {status}; nothing is served")
                return 1
        # A cluster's runtime waits for adapters that are still on their way; here all have arrived.
        if fault := _missing_adapter(pod, folders):
            voice.say(f"error: {fault}; nothing is served")
            return 1
        return await _serve(pod.runtime, preset, url, voice, stopping)
    finally:
        stopping.cancel()


async def _step(step: Command, voice: _Voice, stopping: "asyncio.Task[bool]") -> int | None:
    """Returns the exit status of a step, None where the user stopped it."""
    started = time.monotonic()
    async with Process(step, voice.say) as process:
        with voice.console.status(f"step {step.name}"):
            ended = asyncio.create_task(process.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            ended.cancel()
            return None
        voice.say(f"step {step.name}: {time.monotonic() - started:.1f} s")
        return ended.result()


async def _serve(command: Command, preset: ModelPreset, url: str, voice: _Voice, stopping: "asyncio.Task[bool]") -> int:
    async with Process(command, voice.say) as process, httpx.AsyncClient(base_url=url, timeout=300) as client:
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(_until_ready(client, preset, voice))
        try:
            with voice.console.status(f"loading {preset.name}"):
                await asyncio.wait({ended, ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                voice.say(f"error: the runtime ended with exit status {ended.result()} before it was ready")
                return 1
            if stopping.done():
                return 0
            if fault := ready.result():
                voice.say(f"error: {fault}; nothing is served")
                return 1
            _announce(url, preset)
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                voice.say(f"error: the runtime ended with exit status {ended.result()}")
                return 1
            voice.say("stopping")
            return 0
        finally:
            ready.cancel()
            ended.cancel()


async def _until_ready(client: httpx.AsyncClient, preset: ModelPreset, voice: _Voice) -> str:
    """Returns "" once a real request went through with every adapter applied, or what is wrong."""
    started = told = time.monotonic()
    while True:
        try:
            if fault := await _failed_adapter(client):
                return fault
            if (await client.get("/readyz")).is_success:
                break
        except httpx.TransportError:
            pass  # it does not listen yet
        if time.monotonic() - told > _NEWS_SECONDS:
            told = time.monotonic()
            voice.say(f"loading {preset.name}: {told - started:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)
    answer = await client.post("/v1/completions", json={"model": preset.name, "prompt": "Hello", "max_tokens": 1})
    if not answer.is_success:
        return f"the first request was answered with {answer.status_code}: {answer.text[:500]}"
    return ""


async def _failed_adapter(client: httpx.AsyncClient) -> str:
    answer = await client.get("/v1/adapters")
    rows = answer.json().get("data", []) if answer.is_success else []
    faults = [str(row.get("message")) for row in rows if row.get("state") == "Failed"]
    return "; ".join(faults)


def _announce(url: str, preset: ModelPreset) -> None:
    body = json.dumps({"model": preset.name, "messages": [{"role": "user", "content": "What is the moon?"}]})
    print(f"ready: {url}", flush=True)
    print(f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'", file=sys.stderr)
    print(f"  kaito chat --url {url}", file=sys.stderr, flush=True)
