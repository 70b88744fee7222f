"""`kaito new`: writes a plugin package from the files in `templates/`. It loads and installs nothing."""

from kaito_core.scaffold.package import KINDS, Kind, write_package

__all__ = ["KINDS", "Kind", "write_package"]
