"""Writes a plugin package from the templates: which kinds there are, which names are allowed, and the files."""

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from importlib_metadata import PackageNotFoundError, version

from kaito_core.errors import ConfigError
from kaito_core.hookspecs import API_VERSION
from kaito_core.plugins.loader import BUILTIN

__all__ = ["KINDS", "Kind", "write_package"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_LONGEST = 30  # names of presets, node providers and modules begin with it
_SUFFIX = ".tmpl"  # so that no tool takes a template for Python
#: Distributions of the project itself: a package of the same name would replace ours, or be replaced by it.
_OURS = (
    *("core", "runtime", "testing", "karpenter", "gpu-aws", "gpu-azure", "gpu-onprem"),
    *("falcon", "llama", "mistral", "phi", "qwen"),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin.

    Attributes:
        description: Description of the distribution; "{title}" stands for the plugin's name.
        edit: What its author edits first: files under the package's folder, and what belongs there.
        requires: Distributions that it needs at run time.
        entry_points: Further tables of its pyproject.toml.
    """

    description: str
    edit: Mapping[str, str]
    requires: tuple[str, ...] = ("kaito-core",)
    entry_points: str = ""


KINDS: Mapping[str, Kind] = {
    "model": Kind(
        "{title} presets for kaito",
        {
            "src/{package}/presets.py": "the model: its weights and what it needs, with the source of each number",
            "tests/test_conformance.py": "nothing to edit: it checks your presets against the rules for all presets",
        },
    ),
    "cloud": Kind(
        "GPU nodes on {title} for kaito, through Karpenter NodeClaims",
        {
            "src/{package}/skus.py": "the cloud's GPU machine types",
            "src/{package}/provider.py": "the node class of NodeClaims, and the pattern of machine type names",
        },
        requires=("kaito-core", "kaito-karpenter"),
    ),
    "source": Kind(
        "Adapters from {title} for kaito",
        {
            "src/{package}/source.py": "the pattern of references",
            "src/{package}/fetch.py": "what runs in the pod: the files at a reference, and how one is read",
            "tests/test_conformance.py": "references of your source, valid and invalid ones",
        },
        entry_points="""
# What runs in the pod: kaito-fetch imports it there, the operator never.
[project.entry-points.kaito_fetch]
{entry} = "{package}.fetch"
""",
    ),
}


def write_package(kind: str, name: str, to: Path) -> tuple[Path, dict[str, str]]:
    """Writes a package that installs and passes its tests.

    Args:
        kind: One of `KINDS`.
        name: Name of the plugin; the distribution is "kaito-NAME".
        to: Folder in which the package's own folder is made.

    Returns:
        The package's folder, and what to edit first: files, and what belongs there.

    Raises:
        ConfigError: The name is malformed or taken, `to` is not a folder, or the package's folder exists already.
    """
    _check_name(name)
    if not to.is_dir():
        raise ConfigError(f"--to must be an existing folder, got '{to}'")
    entry, core_version = name.replace("-", "_"), version("kaito-core")
    title = name.replace("-", " ").title()
    values = {
        "name": name,
        "entry": entry,
        "entry_upper": entry.upper(),
        "title": title,
        "class_name": title.replace(" ", ""),
        "distribution": f"kaito-{name}",
        "package": f"kaito_{entry}",
        "description": KINDS[kind].description.format(title=title),
        "core_version": core_version,
        "requirements": ", ".join(f'"{required}>={core_version}"' for required in KINDS[kind].requires),
        "api_version": str(API_VERSION),
    }
    values["entry_points"] = KINDS[kind].entry_points.format(**values)
    folder = to / values["distribution"]
    if folder.exists():
        raise ConfigError(f"{folder} exists already and was not changed; choose another name or another --to")
    # Written to a scratch folder and moved in one go: a full disk must not leave half a package.
    with tempfile.TemporaryDirectory(prefix=".kaito-new-", dir=to) as scratch:
        draft = Path(scratch) / folder.name
        for source in ("common", kind):
            for path, text in _templates(files("kaito_core.scaffold") / "templates" / source):
                target = draft / path.replace("PACKAGE", values["package"]).replace("dot-", ".")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(Template(text).substitute(values), encoding="utf-8")
        draft.rename(folder)
    return folder, {path.format(**values): what for path, what in KINDS[kind].edit.items()}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ConfigError(
            f"NAME must be lower-case letters and digits with single '-' between them, start with a letter and have "
            f"at most {_LONGEST} characters, got '{name}'"
        )
    if name.startswith("kaito-"):
        raise ConfigError(f"NAME must not begin with 'kaito-', which is added: use '{name.removeprefix('kaito-')}'")
    if name in _OURS:
        raise ConfigError(f"NAME must not be '{name}': kaito-{name} is a distribution of the kaito project")
    if name == BUILTIN:
        raise ConfigError(f"NAME must not be '{BUILTIN}', which is the plugin in kaito-core")
    try:
        installed = version(f"kaito-{name}")
    except PackageNotFoundError:
        return
    raise ConfigError(f"NAME must not be '{name}': kaito-{name} {installed} is installed; uninstall it first")


def _templates(folder: Traversable, under: str = "") -> Iterator[tuple[str, str]]:
    """Yields the templates of a folder: the path of the file to write, and the template's text."""
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{under}{item.name}"
        if item.is_dir():
            yield from _templates(item, f"{path}/")
        elif item.name.endswith(_SUFFIX):
            yield path.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")
