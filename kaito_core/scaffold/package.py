"""What can be written, under which names, and how the templates become files."""

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

__all__ = ["KINDS", "Kind", "write_package"]

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_LONGEST = 30  # names of presets, node providers and modules begin with it
_RESERVED = ("builtin", "core", "new", "runtime")
_SUFFIX = ".tmpl"  # so that no tool takes a template for Python


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plugin.

    Attributes:
        description: What the package brings, in a sentence with the name as "{title}".
        edit: What its author edits first: file under the package's folder, and what to put there.
    """

    description: str
    edit: Mapping[str, str]


KINDS: Mapping[str, Kind] = {
    "model": Kind(
        "{title} presets for kaito",
        {
            "src/{package}/presets.py": "the model: weights, what it needs, and for each number where it comes from",
            "tests/test_conformance.py": "nothing: it holds your presets to the rules of all presets",
        },
    ),
    "cloud": Kind(
        "GPU nodes on {title} for kaito, through Karpenter NodeClaims",
        {
            "src/{package}/skus.py": "the cloud's GPU machine types",
            "src/{package}/provider.py": "the node class that claims refer to, and what machine types look like",
        },
    ),
    "source": Kind(
        "Adapters from {title} for kaito",
        {
            "src/{package}/source.py": "what a reference looks like, and the image and command that fetch one",
            "tests/test_conformance.py": "references of yours, good ones and bad ones",
        },
    ),
}


def write_package(kind: str, name: str, to: Path) -> tuple[Path, dict[str, str]]:
    """Writes a package that installs, and whose tests pass.

    Args:
        kind: One of `KINDS`.
        name: Name of the plugin; the distribution is "kaito-NAME".
        to: Folder in which the package's own folder is made.

    Returns:
        The package's folder, and what to edit first: file, what to put there.

    Raises:
        ConfigError: The name cannot be used, the folder is missing, or the package's folder is there already.
    """
    _check_name(name)
    if not to.is_dir():
        raise ConfigError(f"--to {to}: is no folder; make it first")
    entry = name.replace("-", "_")
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
        "core_version": version("kaito-core"),
        "api_version": str(API_VERSION),
    }
    folder = to / values["distribution"]
    if folder.exists():
        raise ConfigError(f"{folder} is there already, and is left as it is; choose another name or another --to")
    # Written beside its place and moved there whole, so that a full disk leaves no half package.
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
            f"NAME must be lower-case letters, digits and single '-' between them, start with a letter and have "
            f"at most {_LONGEST} characters, got '{name}'"
        )
    if name.startswith("kaito-"):
        raise ConfigError(f"NAME must be without 'kaito-', which is put before it: use '{name.removeprefix('kaito-')}'")
    if name in _RESERVED:
        raise ConfigError(f"NAME must not be one of kaito's own ({', '.join(_RESERVED)}), got '{name}'")
    try:
        installed = version(f"kaito-{name}")
    except PackageNotFoundError:
        return
    raise ConfigError(f"NAME is taken: kaito-{name} {installed} is installed; choose another, or uninstall that first")


def _templates(folder: Traversable, under: str = "") -> Iterator[tuple[str, str]]:
    """Yields the templates of a folder, each with the path of the file that it becomes."""
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{under}{item.name}"
        if item.is_dir():
            yield from _templates(item, f"{path}/")
        elif item.name.endswith(_SUFFIX):
            yield path.removesuffix(_SUFFIX), item.read_text(encoding="utf-8")
