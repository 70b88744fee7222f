"""Adapters that were trained on a model with a vision part around the text model that is served.

Their names have the wrapper's folder in them. Patterns are matched against the names as the adapter has them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["PLAIN", "Names", "names_of"]

PREFIX = "base_model.model."
# Where wrappers of transformers keep the text model, and where it is in the text model alone.
_WRAPPERS = (("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.", ""))


@dataclass(frozen=True, slots=True)
class Names:
    """How an adapter names the modules of the model that is served.

    Attributes:
        wrapped: How the names of the inner model begin there.
        plain: How they begin here.
    """

    wrapped: str = ""
    plain: str = ""

    def here(self, name: str) -> str:
        """Returns a name of the adapter as the model has it."""
        bare = name.removeprefix(PREFIX)
        return self.plain + bare.removeprefix(self.wrapped) if self.wrapped and bare.startswith(self.wrapped) else name

    def there(self, path: str) -> str:
        """Returns the path of a module as the adapter has it."""
        return self.wrapped + path.removeprefix(self.plain) if self.wrapped and path.startswith(self.plain) else path


PLAIN = Names()


def names_of(tensors: Mapping[str, Tensor], model: nn.Module) -> Names:
    """Returns how a file names modules: as the model does, or as a model around it does."""
    paths = [path for path, _ in model.named_modules()]
    bare = [key.removeprefix(PREFIX) for key in tensors]
    for wrapped, plain in _WRAPPERS:
        if any(key.startswith(wrapped) for key in bare) and not any(f"{path}.".startswith(wrapped) for path in paths):
            return Names(wrapped, plain)
    return PLAIN
