"""Writes a plugin package from the files in `templates/`, for `kaito new`. Nothing is installed or loaded."""

from kaito_core.scaffold.package import KINDS, Kind, write_package

__all__ = ["KINDS", "Kind", "write_package"]
