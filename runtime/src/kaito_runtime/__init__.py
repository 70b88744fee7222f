"""The server that runs inside the pod: an OpenAI-compatible API over one base model and many LoRA adapters.

Authors of model packages need `hookimpl` from here, and `Recipe` from `kaito_runtime.model.recipe`.
"""

from pluggy import HookimplMarker

__all__ = ["hookimpl"]

hookimpl = HookimplMarker("kaito_runtime")  #: marks a function of a package as the implementation of a runtime hook
