"""The documents are right: snippets are valid, links lead somewhere, commands exist."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from kaito_core.api import parse_workspace
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings

ROOT = Path(__file__).parents[3]
SKIPPED = {".venv", ".git", "node_modules"}
PAGES = sorted(page for page in ROOT.rglob("*.md") if not SKIPPED & set(page.relative_to(ROOT).parts))
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_workspaces_in_documents_are_valid(page: Path) -> None:
    registry = PluginRegistry.discover(Settings())
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") == "Workspace":
                resolve(parse_workspace(document), registry)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_documents_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # Code only: in prose "make" is a verb.
    code = " ".join(re.findall(r"`[^`\n]+`|^    .*$|```.*?```", page.read_text(), re.MULTILINE | re.DOTALL))
    for target in re.findall(r"\bmake ([a-z-]+)\b", code):
        assert target in targets, f"{page.name}: make {target}"
    for command in set(re.findall(r"\bkaito ([a-z]+)\b", code)):
        assert command in _commands(), f"{page.name}: kaito {command}"


def _commands() -> set[str]:
    from kaito_core.cli.app import app

    named = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return named | {group.name for group in app.registered_groups if group.name}


def test_readme_names_every_distribution() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in [ROOT / "pyproject.toml", ROOT / "runtime/pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        name = tomllib.loads(path.read_text())["project"]["name"]
        assert f"`{name}`" in readme, name


def test_architecture_is_short_and_names_only_what_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    assert len(text.splitlines()) <= 150
    for name in re.findall(r"`((?:kaito_core|runtime|plugins|tests|examples|docs|deploy)/[\w/.*-]*)`", text):
        assert list(ROOT.glob(name.rstrip("/"))), name


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid(example: Path) -> None:
    command = [sys.executable, "-m", "kaito_core.cli", "validate", str(example)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
