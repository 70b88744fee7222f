"""HookProject: a family of hooks, its version, and how plugins for it are found.

There are two: the operator's in `registry`, and the runtime's, which is loaded by the same code.
"""

from dataclasses import dataclass
from types import ModuleType

import pluggy

__all__ = ["HookProject"]


@dataclass(frozen=True, slots=True)
class HookProject:
    """A pluggy project whose plugins are found through entry points.

    Attributes:
        name: pluggy's name of the project, and the entry-point group of its plugins.
        specs: The module with the specifications of the hooks.
        api_version: Version of the hooks. A plugin asks for one in the entry-point group `<name>.api`, under the name
            of its own entry point, with the value "vN".
        marker: What marks an implementation, as messages name it.
        calls_unmarked: Whether a function with the name of a hook is called although it is not marked.
    """

    name: str
    specs: ModuleType
    api_version: int
    marker: str
    calls_unmarked: bool = False

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks."""
        return tuple(name for name, value in vars(self.specs).items() if hasattr(value, f"{self.name}_spec"))

    def manager(self) -> pluggy.PluginManager:
        """Returns a plugin manager that knows the hooks and no plugin."""
        manager = _Manager(self)
        manager.add_hookspecs(self.specs)
        return manager


class _Manager(pluggy.PluginManager):
    def __init__(self, project: HookProject) -> None:
        super().__init__(project.name)
        self._unmarked = project.hooks if project.calls_unmarked else ()

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        marked = super().parse_hookimpl_opts(plugin, name)
        if marked is None and name in self._unmarked and callable(getattr(plugin, name, None)):
            return pluggy.HookimplOpts(
                wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
            )
        return marked
