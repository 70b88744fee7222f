"""The command line as a user types it; the server as a process."""

import inspect
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from importlib_metadata import EntryPoint
from live import until
from typer.testing import CliRunner

from kaito_runtime.cli import app
from kaito_runtime.cli.serve import serve
from kaito_runtime.model.recipe import PROJECT
from kaito_runtime.model.recipes import find_recipes

RUN = [sys.executable, "-m", "kaito_runtime"]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Commands that run in this process set its handler."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments: str) -> str:
    """Runs a command that must fail with one line, and returns it."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return str(result.stderr)


def test_arguments_are_checked_before_torch_is_imported() -> None:
    code = "import sys; from kaito_runtime.cli import app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_help_names_every_option_and_an_example() -> None:
    text = run("serve", "--help").output
    for parameter in inspect.signature(serve).parameters:
        assert f"--{parameter.replace('_', '-')}" in text
    assert "Example:" in text


def test_bad_arguments_are_one_line(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "bad.json").write_text('{"model": {"name": "m"}, "adapters": [{"name": "a", "strength": "abc"}]}')
    model = ("serve", "--model", str(tiny_llama))
    assert "'/none' does not exist" in refused("serve", "--model", "/none")
    assert "folder '/none' does not exist" in refused(*model, "--adapter", "a=/none")
    assert "strength must be a finite number, got 'nan'" in refused(*model, "--adapter", f"a={tmp_path}@nan")
    assert "No such file" in refused(*model, "--config", str(tmp_path / "none.json"))
    assert "adapters[0].strength" in refused(*model, "--config", str(tmp_path / "bad.json"))
    for option in ("--name", "--adapter", "--dtype"):
        assert "cannot be combined with --config" in refused(*model, "--config", "x", option, "y")
    assert "--api-key-file" in refused(*model, "--api-key-file", "/none")
    (tmp_path / "key").write_text("secret\n")
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    keys = ("--api-key-file", str(tmp_path / "key"), "--admin-token-file")
    assert "--admin-token-file: /none: No such file" in refused(*model, "--admin-token-file", "/none")
    assert "users must not change adapters" in refused(*model, *keys, str(tmp_path / "key"))
    assert f"--admin-token-file: {tmp_path}/blank is empty" in refused(*model, *keys, str(tmp_path / "blank"))
    assert f"--admin-token-file: {tmp_path}/binary" in refused(*model, *keys, str(tmp_path / "binary"))
    assert "is a file, but not a GGUF" in refused("serve", "--model", str(tmp_path / "bad.json"))
    (tmp_path / "recipe.json").write_text('{"model": {"name": "m", "recipe": "nothing"}}')
    assert "unknown recipe 'nothing', known: default" in refused(*model, "--config", str(tmp_path / "recipe.json"))


def test_several_processes_need_torchrun(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE is 2, but RANK, LOCAL_RANK," in refused("serve", "--model", str(tiny_llama))


def test_doctor_shows_broken_packages_with_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = find_recipes([EntryPoint("mine", "no_such_module", PROJECT)])
    monkeypatch.setattr("kaito_runtime.model.recipes.installed_recipes", lambda: broken)
    result = run("doctor")
    assert result.exit_code == 1
    assert result.output.startswith("mine: failed: ModuleNotFoundError: No module named 'no_such_module'\n\nTraceback")
    monkeypatch.undo()
    assert run("doctor").output.splitlines()[0].startswith("falcon (kaito-falcon ")


def test_fetch_says_what_it_did(tiny_adapters: Path, tmp_path: Path) -> None:
    result = run("fetch", str(tiny_adapters / "one"), "--to", str(tmp_path / "to"))
    assert result.output == f"{tmp_path}/to: adapter_config.json, adapter_model.safetensors\n"
    assert "/none is not a folder" in refused("fetch", "/none", "--to", str(tmp_path / "to"))


class Process:
    """`kaito-runtime serve` as a child process."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*RUN, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.log: list[str] = []
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,))
        self._reader.start()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        code = self._process.wait(60)
        self._reader.join()
        assert self._process.stdout is not None
        assert self._process.stdout.read() == ""
        self._process.stdout.close()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code

    def ready(self) -> str:
        """Waits for the line that says where it listens."""

        def found() -> str | None:
            assert self._process.poll() is None, "".join(self.log)
            return next((m[1] for line in list(self.log) if (m := re.search("ready: (http.*)", line))), None)

        return str(until(found, "ready"))


@pytest.mark.slow
def test_process_serves_finishes_what_runs_and_ends(tiny_llama: Path, tiny_adapters: Path, tmp_path: Path) -> None:
    (tmp_path / "serving.json").write_text(
        json.dumps({"model": {"name": "tiny"}, "adapters": [{"name": "one", "strength": "0.5"}]})
    )
    arguments = ["--config", str(tmp_path / "serving.json"), "--adapters-dir", str(tiny_adapters)]
    process = Process("--model", str(tiny_llama), "--port", "0", "--cache-gib", "0.02", *arguments)
    url = process.ready()
    assert [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]] == ["tiny", "base", "one"]
    body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "logit_bias": {"256": -100}, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        process.signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in process.log), "draining")
        refused = httpx.post(f"{url}/v1/completions", json=body)
        rest = [line for line in lines if line]
    assert refused.status_code == 503
    assert rest[-1] == "data: [DONE]"
    assert len(rest) > 100
    assert process.wait() == 0


@pytest.mark.slow
def test_process_that_is_ended_under_load_finishes_all_it_took(tiny_llama: Path) -> None:
    """Those that wait for a place in the batch too: nobody else knows of them."""
    process = Process("--model", str(tiny_llama), "--port", "0", "--cache-gib", "0.02", "--batch-requests", "2")
    url = process.ready()
    body = {"model": "base", "prompt": "a", "max_tokens": 200, "logit_bias": {"256": -100}, "temperature": 0}
    # One client: making one takes longer than an answer, so that the first would be over before the last has asked.
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        alone = client.post("/v1/completions", json=body).json()["choices"][0]["text"]

        def counts() -> list[float]:
            text = client.get("/metrics").text
            names = ("num_requests_running", "num_requests_waiting")
            return [float(re.search(rf"^vllm:{name}{{.*}} (.*)$", text, re.MULTILINE)[1]) for name in names]  # type: ignore[index]

        answers = [pool.submit(client.post, "/v1/completions", json=body) for _ in range(8)]
        until(lambda: counts() == [2, 6], "all are there")
        process.signal(signal.SIGTERM)
        until(lambda: any("stopping" in line for line in process.log), "draining")
        late = [client.post("/v1/completions", json=body) for _ in range(3)]
        assert client.get("/readyz").status_code == 503
    assert [(each.status_code, each.json()["error"]["code"]) for each in late] == [(503, "server_stopping")] * 3
    assert [each.result().json()["choices"][0]["text"] for each in answers] == [alone] * 8
    assert process.wait() == 0


@pytest.mark.slow
def test_process_ends_at_once_at_a_signal_while_it_loads(smollm2: Path) -> None:
    process = Process("--model", str(smollm2), "--port", "0")
    until(lambda: any("loading" in line for line in process.log), "loading")
    process.signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM


@pytest.mark.slow
def test_port_that_is_taken_is_one_line_and_exit_1(tiny_llama: Path) -> None:
    first = Process("--model", str(tiny_llama), "--port", "0", "--cache-gib", "0.02")
    port = first.ready().rpartition(":")[2]
    second = Process("--model", str(tiny_llama), "--port", port, "--cache-gib", "0.02")
    assert second.wait() == 1
    assert f"error: cannot listen on 127.0.0.1:{port}" in second.log[-1]
    first.signal(signal.SIGINT)
    assert first.wait() == 0
