"""Python's garbage collector in a process that lives long and works on many small objects."""

import gc

__all__ = ["spare_collector"]

_ALLOCATIONS = 2_000  # between two collections of young objects; larger means more memory for little time


def spare_collector() -> None:
    """Keeps the collector from looking at what is there for good, and from looking often; for whole processes only.

    Imported modules and plugins are most of the operator's objects: to go through them again and again took a sixth of
    its CPU time, and stopped all watches and passes meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *gc.get_threshold()[1:])
