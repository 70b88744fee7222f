"""A planned pod as commands for this machine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.fetched_adapters import write_adapter
from helpers.image_files import layer, oci_layout
from kaito_core import hookimpl
from kaito_core.api import AdapterRef, AdapterSource, FetchStep, NodeState, parse_workspace
from kaito_core.errors import ConfigError, FieldError
from kaito_core.local.pod import LocalPod, local_pod
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings


class Bucket:
    """A source as `kaito new source` writes it: a program in an image of its own fetches the adapter."""

    name = "bucket"
    schemes = ("bucket",)

    def check(self, ref: AdapterRef) -> tuple[FieldError, ...]:
        return ()

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        return FetchStep(command=("fetch", ref.location, "--to", target), image="registry.example/bucket-fetch:1")


class BucketPlugin:
    @hookimpl
    def kaito_adapter_sources(self) -> list[AdapterSource]:
        return [Bucket()]


REGISTRY = PluginRegistry.discover(Settings())
REGISTRY.register(BucketPlugin(), "bucket")


def pod(tmp_path: Path, *sources: dict[str, Any], images: dict[str, Path] | None = None) -> LocalPod:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w"},
        "inference": {
            "preset": {"name": "smollm2-135m-instruct"},
            "adapters": [{"source": {"name": f"a{i}", **source}} for i, source in enumerate(sources)],
        },
    }
    resolved = resolve(parse_workspace(document), REGISTRY)
    return local_pod(
        desired(resolved, NodeState(()), Settings()).objects,
        tmp_path / "pod",
        variables={"KAITO_HOST": "127.0.0.1", "KAITO_PORT": "1234", "UNUSED": "x"},
        images=images or {},
        weights=tmp_path / "my weights.gguf",
        fetch_weights=False,
    )


def run(command: Any) -> None:
    subprocess.run(command.argv, check=True)


def test_the_runtime_is_started_with_local_paths_and_the_given_port(tmp_path: Path) -> None:
    runtime = pod(tmp_path).runtime
    root = tmp_path / "pod" / "volumes"
    assert runtime.argv == (
        *(sys.executable, "-m", "kaito_runtime", "serve"),
        *("--config", f"{root}/serving/serving.json"),
        *("--model", str(tmp_path / "my weights.gguf")),
        *("--adapters-dir", f"{root}/adapters"),
        *("--host", "127.0.0.1", "--port", "1234"),
        *("--drain-seconds", "105"),
    )
    assert "UNUSED" not in runtime.env  # only variables that the pod has are replaced
    assert "HOME" not in runtime.env  # the user's caches stay in use
    assert '"smollm2-135m-instruct"' in (root / "serving" / "serving.json").read_text()


def test_an_image_step_copies_data_out_of_the_image_on_disk(tmp_path: Path) -> None:
    layout = oci_layout(tmp_path / "layout", {"x": [layer({"data/adapter_config.json": b"{}"})]})
    local = pod(tmp_path, {"image": "registry.example/a:1"}, images={"registry.example/a:1": layout})
    (step,) = local.steps
    run(step)
    (found,) = local.adapters.rglob("adapter_config.json")
    assert found.relative_to(local.adapters).parts[0] == "a0"


def test_a_file_step_copies_a_folder_whose_path_a_shell_would_split(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "my adapter; rm")
    local = pod(tmp_path, {"uri": f"file://{folder}"})
    run(local.steps[0])
    assert [p.name for p in local.adapters.rglob("*.json")] == ["adapter_config.json"]


def test_an_image_that_is_not_here_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".docker").mkdir(parents=True)
    (tmp_path / "home" / ".docker" / "config.json").write_text("{}")
    (step,) = pod(tmp_path, {"image": "registry.example/a:1"}).steps
    assert step.argv[1:4] == ("-m", "kaito_core.fetch", "image://registry.example/a:1")
    assert Path(step.argv[4]).is_relative_to(tmp_path)
    assert step.env == {".dockerconfigjson": "{}"}
    (step,) = pod(tmp_path / "own", {"image": "localhost:5000/a:1"}).steps
    assert step.env["KAITO_FETCH_HTTP"] == "true"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"uri": "bucket://team/style"},
            ["adapter 'a0' is fetched by a program in the image 'registry.example/bucket-fetch:1'", "file:FOLDER"],
        ),
        ({"uri": "file:///does/not/exist"}, ["/does/not/exist", "does not exist on this machine"]),
        ({"volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}, ["persistentVolumeClaim", "emptyDir"]),
    ],
)
def test_what_this_machine_does_not_have_is_named(tmp_path: Path, source: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        pod(tmp_path, source)
    assert all(word in str(caught.value) for word in words), caught.value
