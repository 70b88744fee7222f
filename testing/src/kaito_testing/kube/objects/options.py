"""The options of write and delete requests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeleteOptions", "WriteOptions"]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a create, update, patch or apply.

    Attributes:
        manager: Field manager.
        dry_run: Answer as if it were written, and write nothing.
        strict: Refuse unknown fields of custom resources instead of dropping them.
        force: Of an apply: take fields from other managers.
        subresource: "", "status" or "ephemeralcontainers".
    """

    manager: str = "unknown"
    dry_run: bool = False
    strict: bool = False
    force: bool = False
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Options of a delete.

    Attributes:
        uid: Delete only the object with this uid, "" for any.
        resource_version: Delete only this version of the object, "" for any.
        grace_seconds: How long a pod may take to shut down, None for its own setting.
        propagation: "Background", "Foreground" or "Orphan".
        dry_run: Answer as if it were deleted, and delete nothing.
    """

    uid: str = ""
    resource_version: str = ""
    grace_seconds: int | None = None
    propagation: str = "Background"
    dry_run: bool = False
