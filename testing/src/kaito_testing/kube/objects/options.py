"""What write and delete requests say beside their body."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DeleteOptions", "WriteOptions"]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options of a create, update, patch or apply.

    Attributes:
        manager: Field manager.
        dry_run: Answer as if written, write nothing.
        strict: Refuse unknown fields of custom resources in place of dropping them.
        force: For an apply: take fields from other managers.
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
        uid: Delete only this object, "" for whichever has the name.
        resource_version: Delete only this state of it, "" for any.
        grace_seconds: Time that a pod gets, None for what the pod asks for.
        propagation: "Background", "Foreground" or "Orphan".
        dry_run: Answer as if deleted, delete nothing.
    """

    uid: str = ""
    resource_version: str = ""
    grace_seconds: int | None = None
    propagation: str = "Background"
    dry_run: bool = False
