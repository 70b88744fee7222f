"""What the project files of all distributions say: versions in step, few dependencies, and what an index shows."""

import importlib
import re

import pytest

from helpers.distributions import FOLDERS, ROOT, project


def test_every_member_is_listed_here() -> None:
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert found == {folder for folder in FOLDERS if folder.startswith("plugins/")}


def test_versions_are_in_step_and_pinned_to_one_another() -> None:
    version = project(".")["version"]
    for folder in FOLDERS[1:]:
        member = project(folder)
        assert member["version"] == version, folder
        assert f"kaito-core=={version}" in member["dependencies"], folder


def test_no_distribution_needs_torch_unless_asked() -> None:
    for folder in FOLDERS:
        needed = " ".join(project(folder)["dependencies"])
        assert not any(name in needed for name in ("torch", "transformers", "peft", "triton")), folder


def test_constraints_pin_torch_first_and_everything_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    assert all("==" in line for line in lines)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_index_can_show_the_distribution(folder: str) -> None:
    found = project(folder)
    assert found["urls"] == project(".")["urls"]
    readme = (ROOT / folder / found["readme"]).read_text()
    assert found["name"] in readme
    # An index has no other file of the repository.
    assert not [link for link in re.findall(r"\]\(([^)\s]+)", readme) if "://" not in link]


@pytest.mark.parametrize("old", ["kaito_core.testing", "kaito_core.testing.conformance", "kaito_core.api.karpenter"])
def test_what_has_moved_says_where_it_went(old: str) -> None:
    with pytest.raises(ImportError) as caught:
        importlib.import_module(old)
    distribution = "kaito-karpenter" if "karpenter" in old else "kaito-testing"
    assert f"pip install {distribution}" in str(caught.value)
    assert distribution.replace("-", "_") in str(caught.value)
