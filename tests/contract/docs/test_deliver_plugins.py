"""docs/how-to/deliver-plugins.md: its commands install plugins that kaito loads, its patches match the schemas."""

import copy
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from helpers.distributions import ROOT
from helpers.fresh_venv import FreshVenv, Wheels

PAGE = (ROOT / "docs/how-to/deliver-plugins.md").read_text()
PATCHES: list[Any] = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
(DOCKERFILE,) = re.findall(r"```dockerfile\n(.*?)```", PAGE, re.DOTALL)


def test_the_dockerfile_has_two_lines() -> None:
    first, second = DOCKERFILE.splitlines()
    assert first.startswith("FROM ") and second.startswith("RUN pip install ")


@pytest.fixture(scope="module")
def deployment() -> Any:
    """The operator's Deployment as `kaito install` prints it."""
    command = [sys.executable, "-m", "kaito_core.cli", "install"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return next(manifest for manifest in yaml.safe_load_all(text) if manifest["kind"] == "Deployment")


@pytest.mark.parametrize("patch", PATCHES, ids=["index", "volume"])
def test_patches_fit_the_operators_deployment(patch: Any, deployment: Any) -> None:
    merged = copy.deepcopy(deployment)
    spec, changes = merged["spec"]["template"]["spec"], patch["spec"]["template"]["spec"]
    (container,), (change,) = spec["containers"], changes["containers"]
    assert change["name"] == container["name"], "the patch would add a container"
    assert changes["initContainers"][0]["image"] == container["image"]
    container["env"] += change["env"]  # as a strategic merge patch does: there are no variables and mounts in common
    container.update(volumeMounts=change["volumeMounts"])
    spec.update(initContainers=changes["initContainers"], volumes=changes["volumes"])
    kubernetes_validate.validate(merged, kubernetes_validate.latest_version(), strict=True)
    volumes = {volume["name"] for volume in spec["volumes"]}
    mounts = [mount for c in (*spec["initContainers"], container) for mount in c["volumeMounts"]]
    assert {mount["name"] for mount in mounts} == volumes


def test_the_page_names_what_is_installed(deployment: Any) -> None:
    assert f"deployment/{deployment['metadata']['name']}" in PAGE
    assert f"--namespace {deployment['metadata']['namespace']}" in PAGE
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert DOCKERFILE.startswith(f"FROM {image}\n")


@pytest.mark.slow
def test_each_way_makes_the_preset_known(venv: FreshVenv, wheels: Wheels, tmp_path: Path) -> None:
    wheels.of("plugins/mistral")
    assert "mistral-7b" not in venv.run("kaito", "presets", "list")
    # Stands for the index that the first two ways ask.
    venv.env["PIP_FIND_LINKS"] = str(wheels.folder)

    for index, patch in enumerate(PATCHES):
        (init,), (operator,) = (patch["spec"]["template"]["spec"][key] for key in ("initContainers", "containers"))
        plugins = tmp_path / f"plugins-{index}"
        places = {"/plugins": str(plugins), "/wheels": str(wheels.folder)}
        venv.run(*(places.get(word, word) for word in init["command"]))
        (variable,) = operator["env"]
        listed = venv.run("env", f"{variable['name']}={places[variable['value']]}", "kaito", "presets", "list")
        assert "mistral-7b-instruct" in listed
        assert "mistral-7b" not in venv.run("kaito", "presets", "list"), "it is there without the volume too"

    venv.run(*shlex.split(DOCKERFILE.splitlines()[1].removeprefix("RUN ")))
    assert "mistral-7b-instruct" in venv.run("kaito", "presets", "list")
