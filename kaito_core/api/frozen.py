"""Records and JSON data that cannot be changed, for plugins: a hook that edits its arguments fails at that line."""

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

__all__ = ["FrozenDict", "frozen"]

Value = TypeVar("Value")


class FrozenDict(dict[str, Any]):
    """A dict that refuses changes; copies of it are plain."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("arguments of hooks cannot be changed: return what is to change")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: _plain(value) for key, value in self.items()}


def frozen(value: Value) -> Value:
    """Returns a value that cannot be changed: in records and mappings at any depth, lists become tuples."""
    result: Any = value
    if isinstance(value, BaseModel):
        result = value.model_copy(update={name: frozen(getattr(value, name)) for name in type(value).model_fields})
    elif isinstance(value, Mapping):
        result = FrozenDict({key: frozen(item) for key, item in value.items()})
    elif isinstance(value, list | tuple):
        result = tuple(frozen(item) for item in value)
    return result  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
