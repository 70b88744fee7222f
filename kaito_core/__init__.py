"""Serve language models on Kubernetes through plugins.

Plugin authors need `hookimpl` from here (and `fetchimpl`, where they fetch adapters), records from `kaito_core.api`,
errors from `kaito_core.errors` and, in tests, `kaito_testing`. Everything else may change without notice.
"""

from pluggy import HookimplMarker

__all__ = ["fetchimpl", "hookimpl"]

hookimpl = HookimplMarker("kaito")  #: marks a function of a plugin as the implementation of a kaito hook
fetchimpl = HookimplMarker("kaito_fetch")  #: the same for the half of an adapter source that runs in the pod


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib_metadata import version

        return version("kaito-core")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
