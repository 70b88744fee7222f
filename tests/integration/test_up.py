"""`kaito up` from the outside: a child process, its ready line, its API, and that nothing of it is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from helpers.image_files import docker_archive, layer
from kaito_runtime.testing.models import save_adapter, save_model

pytestmark = pytest.mark.slow
START_SECONDS = 120  # the bound of a hang, not a measure of speed
IMAGE = "registry.example/adapters/two:1.0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a Workspace file, an adapter folder and an image of another adapter."""
    folder = tmp_path_factory.mktemp("work space")
    save_adapter(model, folder / "one", seed=1, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    save_adapter(model, folder / "two", seed=2, r=20, lora_alpha=16, use_rslora=True, target_modules="all-linear")
    files = {f"data/{path.name}": path.read_bytes() for path in (folder / "two").iterdir() if path.is_file()}
    docker_archive(folder / "two.tar", IMAGE, [layer(files)])
    write(folder, adapters())
    return folder


def adapters() -> list[dict[str, Any]]:
    return [
        {"source": {"name": "one", "uri": "file:one"}, "strength": 0.5},
        {"source": {"name": "two", "image": IMAGE}, "strength": "0.25"},
    ]


def write(folder: Path, listed: list[dict[str, Any]], name: str = "workspace.yaml") -> Path:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "tiny"},
        "inference": {
            "preset": {"name": "smollm2-135m-instruct"},
            "adapters": listed,
            "blends": [{"name": "both", "strengths": {a["source"]["name"]: 1 for a in listed}}] if listed else [],
        },
    }
    path = folder / name
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def up(file: Path, model: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "kaito_core.cli", "up", file, "--port", "0", "--weights", model, *options]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()  # blocks until it is ready or has ended
    assert line.startswith("ready: http://127.0.0.1:"), process.stderr.read()
    return line.removeprefix("ready: ").strip()


def descendants(pid: int) -> set[int]:
    """Returns the processes below a process, from /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, edge = set(), {pid}
    while edge:
        edge = {child for child, parent in parents.items() if parent in edge}
        found |= edge
    return found


def gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_a_workspace_is_served_and_ctrl_c_leaves_nothing(folder: Path, model: Path) -> None:
    before = set(Path("/tmp").glob("kaito-*"))
    with up(folder / "workspace.yaml", model, "--image", f"{IMAGE}={folder / 'two.tar'}") as process:
        url = ready_url(process)
        children = descendants(process.pid)
        assert children
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        cards = {card.id for card in client.models.list()}
        assert cards == {"smollm2-135m-instruct", "base", "one", "two", "both"}
        states = {a["name"]: (a["state"], a["strength"]) for a in httpx.get(f"{url}/v1/adapters").json()["data"]}
        assert states == {"one": ("Ready", 0.5), "two": ("Ready", 0.25)}
        answers = {card: answer(client, card) for card in cards}
        assert answers["base"] == answer(client, "one", adapters=[])
        assert answers["one"] == answer(client, "base", adapters=[{"name": "one", "strength": 0.5}])
        assert answers["both"] == answer(client, "base", adapters=[{"name": n, "strength": 1} for n in ("one", "two")])
        assert len(set(answers.values())) == len(cards)
        stream = client.chat.completions.create(
            model="two", messages=[{"role": "user", "content": "hi"}], max_tokens=8, temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer(client, "two", tokens=8)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert gone(children)
    assert set(Path("/tmp").glob("kaito-*")) == before


def answer(client: openai.OpenAI, model: str, tokens: int = 16, **extra: Any) -> str:
    response = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=tokens,
        temperature=0,
        extra_body=extra or None,
    )
    return response.choices[0].message.content or ""


def test_a_killed_parent_takes_the_runtime_along(folder: Path, model: Path) -> None:
    with up(write(folder, [], "bare.yaml"), model) as process:
        ready_url(process)
        children = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
    assert children and gone(children)


def other_rank(folder: Path) -> None:
    config = (folder / "one" / "adapter_config.json").read_text()
    shutil.copytree(folder / "one", folder / "wrong", dirs_exist_ok=True)
    (folder / "wrong" / "adapter_config.json").write_text(config.replace('"r": 4', '"r": 5'))


def empty(folder: Path) -> None:
    (folder / "wrong").mkdir(exist_ok=True)
    for path in (folder / "wrong").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(empty, ["adapter-bad", "no adapter_config.json"]), (other_rank, ["adapter 'bad'", "rank"])],
)
def test_a_bad_adapter_ends_it_with_the_reason(folder: Path, model: Path, spoil: Any, words: list[str]) -> None:
    spoil(folder)
    listed = [{"source": {"name": "bad", "uri": "file:wrong"}}]
    with up(write(folder, listed, "bad.yaml"), model) as process:
        out, errors = process.communicate(timeout=START_SECONDS)
        children = descendants(process.pid)
    assert (process.returncode, out) == (1, "")
    assert all(word in errors.replace("\n", " ") for word in words), errors
    assert not children
