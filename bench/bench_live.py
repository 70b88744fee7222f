"""Measures live edits on a real server process, and checks that none of them costs a request.

Clients stream answers of the default model id without pause. Meanwhile strengths change 50 times, and adapters are
added (late, broken, good), replaced by other content under the same name, and removed. Then the process is killed and
started again. Printed is the time from an edit to the first token under it; the exit status is 1 if a request failed,
an answer is not that of the generation it names, or the process was another one in between.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

EDITS = 50
CLIENTS = 2
MODEL = "tiny"
PROMPT = {"model": MODEL, "prompt": "hello", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
PATIENCE_SECONDS = 120.0  # the bound of a hang
LATE_SECONDS = 1.5  # from the configuration that names an adapter to its files

Mix = Mapping[str, float]
"""Strength by content, a folder under `adapters`."""


@dataclass(frozen=True)
class Answer:
    """One streamed answer."""

    generation: int
    text: str
    first_token: float  # time.monotonic


@dataclass
class Client:
    """Streams one greedy answer after the other."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as http:
            while not self.stop.is_set():
                try:
                    self._ask(http)
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    self.errors.append(repr(error))

    def _ask(self, http: httpx.Client) -> None:
        text, first, ended = "", 0.0, False
        with http.stream("POST", f"{self.url}/v1/completions", json=PROMPT | {"stream": True}) as response:
            if response.status_code != 200:
                self.errors.append(response.read().decode())
                return
            for line in response.iter_lines():
                event = line.removeprefix("data: ")
                ended = ended or event == "[DONE]"
                if line and not ended:
                    first = first or time.monotonic()
                    text += "".join(choice["text"] for choice in json.loads(event)["choices"])
            generation = int(response.headers["x-kaito-generation"])
        if ended:
            self.answers.append(Answer(generation, text, first))
        else:
            self.errors.append(f"an answer of generation {generation} ended early")


class Server:
    """One process that serves, its configuration and its adapters."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder, self.model = folder, model
        self.adapters = folder / "adapters"
        self.config = folder / "serving.json"
        self.generation = 0
        self.wanted: dict[int, Mix] = {}  # what each generation means for the default model id
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["serve", "--config", self.config, "--model", self.model, "--adapters-dir", self.adapters]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kaito_runtime", *map(str, arguments), "--port", str(self.port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
        self.until(lambda: self._get("/readyz").status_code == 200, "ready")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def edit(self, mix: Mix, names: Mapping[str, str]) -> float:
        """Writes a configuration at once, as the kubelet does, and returns when.

        Args:
            mix: Strength by content.
            names: The adapter's name, by content.
        """
        self.generation += 1
        self.wanted[self.generation] = dict(mix)
        listed = [{"name": names[content], "path": content, "strength": s} for content, s in mix.items()]
        body = {"generation": self.generation, "model": {"name": MODEL}, "adapters": listed}
        new = self.config.with_suffix(".new")
        new.write_text(json.dumps(body))
        at = time.monotonic()
        new.rename(self.config)
        return at

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self._get("/v1/adapters").json()
        return found

    def until(self, what: Callable[[], Any], words: str) -> Any:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise SystemExit(
                    f"the server ended with {self.process.returncode}: {(self.folder / 'log').read_text()}"
                )
            try:
                if found := what():
                    return found
            except httpx.HTTPError:
                pass
            time.sleep(0.02)
        raise SystemExit(f"still not {words}: {self.state()}")

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE_SECONDS)


@contextmanager
def clients(url: str) -> Iterator[list[Client]]:
    """Yields clients that stream until the block ends."""
    found = [Client(url) for _ in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in found]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        for client in found:
            client.stop.set()
        for thread in threads:
            thread.join()


def write_files(folder: Path) -> Path:
    """Writes a tiny model and the contents of adapters: "one", "two", "late", and two forms of "other"."""
    from kaito_runtime.testing.models import save_adapter, save_model

    model = save_model(folder / "model", "llama")
    for seed, name in enumerate(("one", "two", "late", "other-1", "other-2"), start=1):
        config: dict[str, Any] = {"r": 4 * seed, "lora_alpha": 8, "std": 0.3}
        config["target_modules"] = ["q_proj", "v_proj"] if seed % 2 else "all-linear"
        save_adapter(model, folder / "contents" / name, seed=seed, **config)
    shutil.copytree(folder / "contents" / "one", folder / "contents" / "broken")
    (folder / "contents" / "broken" / "adapter_model.safetensors").write_bytes(b"nonsense")
    return model


def edits(server: Server, seen: Callable[[int], float], contents: Path, count: int) -> Iterator[float]:
    """Makes the edits, and yields the seconds from each edit of strengths to the first token under it."""
    names = {name: name.removesuffix("-1").removesuffix("-2") for name in ("one", "two", "late", "broken")}
    names |= {"other-1": "other", "other-2": "other"}
    mix: dict[str, float] = {"one": 0.8}

    def put(content: str) -> None:
        if not (server.adapters / content).exists():
            shutil.copytree(contents / content, server.adapters / f".{content}")
            (server.adapters / f".{content}").rename(server.adapters / content)

    stories = itertools.cycle(("two", "late", "broken", "other-1", "other-2", "remove"))
    for number in range(count):
        mix["one"] = round(0.1 + 0.03 * number, 2)
        at = server.edit(mix, names)
        yield seen(server.generation) - at
        if number % 4 != 3:
            continue
        story = next(stories)
        if story == "remove":
            mix = {"one": mix["one"]}
            server.edit(mix, names)
        elif story == "broken":
            put(story)
            server.edit(mix | {story: 1.0}, names)
            broken = server.generation
            server.until(
                lambda: any(each["state"] == "Failed" for each in server.state()["data"]), "reported as failed"
            )
            del server.wanted[broken]  # it is served to nobody
            server.edit(mix, names)
        else:
            mix = {content: s for content, s in mix.items() if names[content] != names[story]} | {story: 0.5}
            server.edit(mix, names)
            if story == "late":
                time.sleep(LATE_SECONDS)
            put(story)
        seen(server.generation)


def expected(server: Server, mixes: Mapping[int, Mix], contents: Path) -> dict[int, str]:
    """Returns the answer of each generation, asked of the server when nothing else runs."""
    names = sorted({content for mix in mixes.values() for content in mix})
    for name in names:
        if not (server.adapters / name).exists():
            shutil.copytree(contents / name, server.adapters / name)
    server.edit(dict.fromkeys(names, 0.0), {name: name for name in names})
    server.until(
        lambda: server.state()["serving_generation"] == server.generation, "ready for the questions at the end"
    )
    texts = {}
    for generation, mix in mixes.items():
        asked = [{"name": content, "strength": strength} for content, strength in mix.items()]
        answer = httpx.post(f"{server.url}/v1/completions", json=PROMPT | {"adapters": asked}, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
        texts[generation] = answer.json()["choices"][0]["text"]
    return texts


def restarts(server: Server, contents: Path) -> list[str]:
    """Kills the server while it serves, adds and fails; returns what it says of itself afterwards."""
    names = {name: name for name in ("one", "two", "broken")}
    shutil.copytree(contents / "broken", server.adapters / "broken", dirs_exist_ok=True)
    said = []
    for what, mix in (
        ("while it serves", {"one": 0.4}),
        ("right after an edit", {"one": 0.6, "two": 0.5}),
        ("with an adapter that fails", {"one": 0.5, "broken": 1.0}),
    ):
        server.edit(mix, names)
        server.kill()
        server.start()
        server.until(lambda: all(each["state"] != "Loading" for each in server.state()["data"]), "settled")
        state = server.state()
        states = ", ".join(f"{each['name']} {each['state']}" for each in state["data"])
        base = httpx.post(f"{server.url}/v1/completions", json=PROMPT | {"model": "base"}, timeout=PATIENCE_SECONDS)
        if state["generation"] != server.generation or base.status_code != 200:
            raise SystemExit(f"killed {what}: came back with {state}")
        said.append(
            f"killed {what}: generation {state['generation']} of {server.generation}, "
            f"served {state['serving_generation']} ({states})"
        )
    return said


def main() -> None:
    """Measures, checks, and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=EDITS)
    count = parser.parse_args().edits
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, contents = write_files(folder), folder / "contents"
        server = Server(model, folder)
        shutil.copytree(contents / "one", server.adapters / "one")
        server.edit({"one": 0.8}, {"one": "one"})
        server.start()
        assert server.process is not None
        process = server.process.pid
        try:
            with clients(server.url) as asking:

                def seen(generation: int) -> float:
                    def first() -> float | None:
                        times = [a.first_token for c in asking for a in list(c.answers) if a.generation == generation]
                        return min(times, default=None)

                    found: float = server.until(first, f"answered with generation {generation}")
                    return found

                seen(1)
                seconds = list(edits(server, seen, contents, count))
            answers = [answer for client in asking for answer in client.answers]
            errors = [error for client in asking for error in client.errors]
            same = server.process.pid == process and server.process.poll() is None
            mixes = {each: server.wanted[each] for each in sorted({a.generation for a in answers} & set(server.wanted))}
            truth = expected(server, mixes, contents)
            wrong = [answer for answer in answers if truth.get(answer.generation) != answer.text]
            said = restarts(server, contents)
        finally:
            server.kill()
    p95 = statistics.quantiles(seconds, n=20)[-1]
    print(f"{len(answers)} answers under {len(mixes)} generations, {len(set(truth.values()))} of them different")
    print(f"failed requests: {len(errors)}, answers of another generation: {len(wrong)}, same process: {same}")
    print(f"edit to first token: median {statistics.median(seconds):.2f} s, p95 {p95:.2f} s, most {max(seconds):.2f} s")
    print("\n".join(said))
    for error in [*errors[:3], *map(str, wrong[:3])]:
        print(error, file=sys.stderr)
    if errors or wrong or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
