"""`kaito new`: a plugin package to start from."""

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
    kind: Annotated[_Kind, typer.Argument(help="What the plugin brings.", show_default=False)],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name; the distribution is kaito-NAME.", show_default=False)
    ],
    to: Annotated[Path, typer.Option(help="Folder to write the package's folder into.")] = Path(),
) -> None:
    """Write a plugin package that installs and whose tests pass, and say what to edit first."""
    from kaito_core.scaffold import write_package

    folder, edit = write_package(kind.value, name, to)
    print(f"wrote {folder}\n\nedit first:")
    for path, what in edit.items():
        print(f"  {path}: {what}")
    print(f"\nthen:\n  pip install --editable '{folder}[test]'\n  pytest {folder}")
