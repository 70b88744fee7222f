"""The command `kaito new`, which writes a plugin package."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["new"]


class _Kind(StrEnum):
    model = "model"
    cloud = "cloud"
    source = "source"


def new(
    kind: Annotated[_Kind, typer.Argument(help="What the plugin adds.", show_default=False)],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the plugin; its package is kaito-NAME.", show_default=False)
    ],
    to: Annotated[Path, typer.Option(help="Folder in which the package's folder is made.")] = Path(),
) -> None:
    """Write a plugin package to start from. It installs and passes its tests, and you are shown what to edit."""
    from kaito_core.scaffold import write_package

    folder, edit = write_package(kind.value, name, to)
    print(f"wrote {folder}\n\nedit first:")
    for path, what in edit.items():
        print(f"  {path}: {what}")
    print(f"\nthen:\n  pip install --editable '{folder}[test]'\n  pytest {folder}")
