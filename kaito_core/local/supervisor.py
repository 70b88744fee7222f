"""The life of a pod on this machine: its steps, its runtime, the first real request, and the end."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence

import httpx
from rich.console import Console

from kaito_core.api import ModelPreset
from kaito_core.errors import ConfigError
from kaito_core.local.pod import WEIGHTS_STEP, Command, LocalPod
from kaito_core.local.process import Process

__all__ = ["run_pod"]

#: Returns the pod after an edit, with the folders of its adapters.
Update = Callable[[], tuple[LocalPod, Sequence[str]] | None]

_POLL_SECONDS = 0.25
_EDIT_SECONDS = 0.5
_NEWS_SECONDS = 10.0
_REQUEST_SECONDS = 300.0
_LONGEST_ANSWER = 500  # characters of an error from the runtime


async def run_pod(
    pod: LocalPod,
    preset: ModelPreset,
    folders: Iterable[str],
    url: str,
    notes: Iterable[str] = (),
    update: Update = lambda: None,
) -> int:
    """Runs a pod until SIGINT, SIGTERM or SIGHUP, and returns the exit status.

    Args:
        pod: What to run.
        preset: What it serves.
        folders: Folders of its adapters, "name/revision".
        url: Where its runtime listens.
        notes: What to tell the user first.
        update: Is called twice a second, and returns the pod and the folders of its adapters after an edit, else None;
            a ConfigError is printed, and what is served stays.

    Raises:
        ConfigError: A command cannot be started.
    """
    voice, stop = _Voice(), asyncio.Event()
    for note in notes:
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
                voice.say(f"error: step {step.name} {_ending(status)}; nothing is served")
                return 1
        # In a cluster adapters may arrive later, so the runtime waits for missing ones. Here all steps have run.
        if fault := _missing_adapter(pod, folders):
            voice.say(f"error: {fault}; nothing is served")
            return 1
        return await _serve(pod, preset, url, voice, stopping, update)
    finally:
        stopping.cancel()


class _Voice:
    """Messages on stderr, with a spinner on a terminal. stdout is left to what programs read."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text)


def _missing_adapter(pod: LocalPod, folders: Iterable[str]) -> str:
    """Returns what is wrong if the step of an adapter has left nothing to load, "" otherwise."""
    for folder in folders:
        if not (pod.adapters / folder / "adapter_config.json").is_file():
            name = folder.partition("/")[0]
            return f"adapter '{name}': no adapter_config.json in its source, which must be a folder that PEFT saved"
    return ""


def _ending(status: int) -> str:
    """Returns how a process ended; a negative status is the signal that ended it."""
    if status >= 0:
        return f"ended with exit status {status}"
    if status == -signal.SIGKILL:
        return "was killed (SIGKILL), probably because this machine or container ran out of memory"
    return f"was ended by signal {-status} ({signal.strsignal(-status)})"


async def _step(step: Command, voice: _Voice, stopping: "asyncio.Task[bool]") -> int | None:
    """Returns the exit status of a step, None if the user stopped it."""
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


async def _serve(
    pod: LocalPod,
    preset: ModelPreset,
    url: str,
    voice: _Voice,
    stopping: "asyncio.Task[bool]",
    update: Update,
) -> int:
    client = httpx.AsyncClient(base_url=url, timeout=_REQUEST_SECONDS)
    async with client, Process(pod.runtime, voice.say) as process:
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(_until_ready(client, preset, voice))
        edits = asyncio.create_task(_follow_edits(ready, pod, voice, stopping, update))
        try:
            with voice.console.status(f"loading {preset.name}"):
                await asyncio.wait({ended, ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                voice.say(f"error: the runtime {_ending(ended.result())} before it was ready")
                return 1
            if stopping.done():
                return 0
            if fault := ready.result():
                voice.say(f"error: {fault}; nothing is served")
                return 1
            _announce(url, preset)
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                voice.say(f"error: the runtime {_ending(ended.result())}")
                return 1
            voice.say("stopping")
            return 0
        finally:
            edits.cancel()
            ready.cancel()
            ended.cancel()


async def _follow_edits(
    ready: "asyncio.Task[str]", pod: LocalPod, voice: _Voice, stopping: "asyncio.Task[bool]", update: Update
) -> None:
    """Applies edits until it is cancelled: files first, then the configuration, which the runtime reads again."""
    await asyncio.wait({ready})
    while True:
        await asyncio.sleep(_EDIT_SECONDS)
        try:
            if (found := await asyncio.to_thread(update)) is None:
                continue
            new, folders = found
            if new.runtime != pod.runtime:
                raise ConfigError("this edit needs a new start of kaito up")
            for step, folder in zip(_adapter_steps(new), folders, strict=True):
                if not _missing_adapter(new, [folder]):
                    continue
                if status := await _step(step, voice, stopping):
                    raise ConfigError(f"step {step.name} {_ending(status)}")
                if status is None:
                    return
                if fault := _missing_adapter(new, [folder]):
                    raise ConfigError(fault)
        except ConfigError as error:
            voice.say(f"error: {error}; what was served before is served on")
        else:
            new.write_config()
            voice.say("the edit is applied")


def _adapter_steps(pod: LocalPod) -> list[Command]:
    return [step for step in pod.steps if step.name != WEIGHTS_STEP]


async def _until_ready(client: httpx.AsyncClient, preset: ModelPreset, voice: _Voice) -> str:
    """Returns "" once a real request was answered with every adapter applied, or what is wrong."""
    started = reported = time.monotonic()
    while True:
        try:
            if fault := await _failed_adapters(client):
                return fault
            if (await client.get("/readyz")).is_success:
                break
        except httpx.TransportError:
            pass  # not listening yet
        if time.monotonic() - reported > _NEWS_SECONDS:
            reported = time.monotonic()
            voice.say(f"loading {preset.name}: {reported - started:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)
    answer = await client.post("/v1/completions", json={"model": preset.name, "prompt": "Hello", "max_tokens": 1})
    if not answer.is_success:
        return f"the first request was answered with {answer.status_code}: {answer.text[:_LONGEST_ANSWER]}"
    return ""


async def _failed_adapters(client: httpx.AsyncClient) -> str:
    answer = await client.get("/v1/adapters")
    rows = answer.json().get("data", []) if answer.is_success else []
    return "; ".join(str(row.get("message")) for row in rows if row.get("state") == "Failed")


def _announce(url: str, preset: ModelPreset) -> None:
    body = json.dumps({"model": preset.name, "messages": [{"role": "user", "content": "What is the moon?"}]})
    print(f"ready: {url}", flush=True)
    print(f"  curl {url}/v1/chat/completions -H 'content-type: application/json' -d '{body}'", file=sys.stderr)
    print(f"  kaito chat --url {url}", file=sys.stderr)
    print(f"  or open {url}/ in a browser", file=sys.stderr, flush=True)
