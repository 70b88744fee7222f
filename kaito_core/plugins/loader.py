"""PluginLoader: loads the plugins of one hook project, keeps broken ones out, and calls the hooks of the others.

What the records of a plugin mean is not decided here: the operator's are indexed by `registry`, the runtime's recipes
by the runtime.
"""

import inspect
import logging
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import pluggy

from kaito_core.errors import PluginConflictError, PluginError, PluginLoadError, UnknownHookError
from kaito_core.plugins.calls import plugin_call
from kaito_core.plugins.candidates import Candidate
from kaito_core.plugins.info import PluginInfo
from kaito_core.plugins.process_state import ProcessState
from kaito_core.plugins.project import HookProject

__all__ = ["BUILTIN", "Named", "PluginLoader", "checked"]

BUILTIN = "builtin"  #: name of the plugin with the records of kaito itself, which the allow list cannot leave out

_log = logging.getLogger(__name__)


class Named(Protocol):
    """The records of one plugin."""

    def names(self) -> list[tuple[str, str]]:
        """Returns what must be unique across plugins, as (kind, name)."""


Records = TypeVar("Records", bound=Named)


class PluginLoader(Generic[Records]):
    """The plugins of one project.

    Args:
        project: The hooks.
        collect: Returns the records of a plugin from the hooks of that plugin alone. Whatever it raises is the
            plugin's failure.
        words: Puts an error of a plugin into words, "" for the usual ones.
        allow: Names of plugins to load; empty: all.
        deny: Names of plugins never to load; wins over `allow`.

    Attributes:
        infos: All plugins that were found, in the order of loading.
    """

    def __init__(
        self,
        project: HookProject,
        collect: Callable[[pluggy.HookRelay], Records],
        *,
        words: Callable[[BaseException], str] = lambda error: "",
        allow: Collection[str] = (),
        deny: Collection[str] = (),
    ) -> None:
        self.infos: list[PluginInfo] = []
        self._project = project
        self._collect = collect
        self._own_words = words
        self._allow, self._deny = allow, deny
        self._manager = project.manager()
        self._origins: dict[tuple[str, str], PluginInfo] = {}
        self._callers: dict[str, list[tuple[str, Callable[..., Any]]]] = {}

    def load(self, candidate: Candidate) -> Records | None:
        """Imports and registers a plugin that was found, and returns its records; None if it is left out."""
        info = PluginInfo(candidate.name, candidate.distribution, candidate.module, "failed")
        if not candidate.distribution:
            info = replace(info, file=candidate.file())
        if reason := self._refusal(candidate.name):
            self.infos.append(replace(info, state="skipped", error=reason))
            return None
        before, started = ProcessState.now(), time.perf_counter()
        try:
            self._refuse_name(info)
            candidate.check_api()
            # Standard output is for programs to read: what a plugin prints there would spoil `-o json`.
            with redirect_stdout(sys.stderr):
                plugin = candidate.load()
                info = replace(info, file=candidate.file(), import_seconds=time.perf_counter() - started)
                remarks = candidate.check_versions(plugin)
        except BaseException as error:  # a plugin may also call exit() while it is imported
            self._fail(replace(info, remarks=before.changes()), error)
            return None
        with redirect_stdout(sys.stderr):
            try:
                return self._register(plugin, replace(info, remarks=remarks), before)
            except PluginError:
                return None

    def register(self, plugin: object, name: str, distribution: str = "") -> Records:
        """Registers a plugin object directly, and returns its records.

        Raises:
            PluginError: It is broken; nothing of it is registered.
        """
        module = getattr(plugin, "__name__", type(plugin).__name__)
        return self._register(plugin, PluginInfo(name, distribution, module, "failed"))

    def origin(self, kind: str, name: str) -> str:
        """Returns the name of the plugin that brings a record."""
        return self._origins[kind, name].name

    def call_each(self, hook: str, **arguments: object) -> Iterator[tuple[str, object]]:
        """Calls a hook plugin by plugin, and yields each plugin's name and its answer other than None.

        The order is pluggy's: `tryfirst`, then the others from the last registered to the first, then `trylast`. Each
        call is a call of pluggy's with one plugin, since in a call of all the first failure keeps the others from
        being asked. A plugin that fails is logged and passed over. For a hook of which the first result counts, stop
        iterating.
        """
        for plugin, caller in self.callers(hook):
            try:
                with plugin_call(plugin, hook):
                    answer = caller(**arguments)
            except Exception:
                _log.exception("plugin '%s': %s failed", plugin, hook)
                continue
            if answer is not None:
                yield plugin, answer

    def callers(self, hook: str) -> list[tuple[str, Callable[..., Any]]]:
        """Returns the plugins that implement a hook, in the order of `call_each`, each with a call of that plugin."""
        if hook not in self._callers:
            called: pluggy.HookCaller = getattr(self._manager.hook, hook)
            first_result = bool(called.spec and called.spec.opts["firstresult"])
            found = []
            for implementation in reversed(called.get_hookimpls()):
                others = [plugin for plugin in self._manager.get_plugins() if plugin is not implementation.plugin]
                alone = self._manager.subset_hook_caller(hook, others)
                found.append((implementation.plugin_name, alone if first_result else _only_answer(alone)))
            self._callers[hook] = found
        return self._callers[hook]

    def _register(self, plugin: object, info: PluginInfo, before: ProcessState | None = None) -> Records:
        try:
            self._refuse_name(info)
            # In a manager of its own first: a plugin that fails leaves no trace.
            trial = self._project.manager()
            trial.register(plugin, info.name)
            trial.check_pending()
            info = replace(info, remarks=(*info.remarks, *_check_functions(plugin, trial, self._project)))
            records = self._collect(trial.hook)
            self._refuse_duplicates(records, info)
            self._manager.register(plugin, info.name)
        except BaseException as error:
            raise self._fail(_with_changes(info, before), error) from error
        info = replace(_with_changes(info, before), state="loaded", records=tuple(records.names()))
        self.infos.append(info)
        self._callers.clear()
        self._origins.update(dict.fromkeys(records.names(), info))
        return records

    def _refuse_name(self, info: PluginInfo) -> None:
        first = next((other for other in self.infos if other.name == info.name), None)
        if first is not None:
            raise PluginConflictError(f"the plugin name is taken: {first} came before {info}; uninstall one of them")

    def _refuse_duplicates(self, records: Named, info: PluginInfo) -> None:
        seen: set[tuple[str, str]] = set()
        for kind, name in records.names():
            if (kind, name) in seen:
                raise PluginConflictError(f"duplicate {kind} '{name}': it is brought twice by the same plugin")
            seen.add((kind, name))
            if first := self._origins.get((kind, name)):
                raise PluginConflictError(
                    f"the {kind} '{name}' is provided by {first} and by {info}: uninstall one, or deny it with "
                    "KAITO_PLUGINS_DENY"
                )

    def _refusal(self, name: str) -> str:
        if name in self._deny:
            return "it is on the deny list (KAITO_PLUGINS_DENY)"
        if self._allow and name not in (*self._allow, BUILTIN):
            return "it is not on the allow list (KAITO_PLUGINS_ALLOW)"
        return ""

    def _fail(self, info: PluginInfo, error: BaseException) -> PluginError:
        if isinstance(error, KeyboardInterrupt):
            raise error
        kind: type[PluginError] = PluginLoadError
        if isinstance(error, PluginError):
            kind = type(error)
        elif isinstance(error, pluggy.PluginValidationError):
            kind = UnknownHookError
        text = self._own_words(error) or _words(error)
        failure = kind(text, plugin=info.name, distribution=info.distribution)
        lines = traceback.format_exception(error, limit=-20)  # the innermost frames: a recursion has a thousand
        self.infos.append(replace(info, state="failed", error=text, traceback="".join(lines)))
        return failure


def checked(hook: str, answer: object, kind: type[Any]) -> tuple[Any, ...]:
    """Returns the records of one answer to a hook.

    Raises:
        TypeError: It is not an iterable of instances of `kind`.
    """
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise TypeError(f"{hook} must return a list of {kind.__name__}, got {type(answer).__name__}")
    records = []
    for record in answer:
        # Protocols look at attributes alone, which the class has as well as its instances.
        if isinstance(record, type) or not isinstance(record, kind):
            raise TypeError(f"{hook} must return a list of {kind.__name__}, got an item {record!r:.200}")
        records.append(record)
    return tuple(records)


def _only_answer(caller: Callable[..., list[Any]]) -> Callable[..., Any]:
    """Returns a caller of one plugin whose answer does not come in a list."""
    return lambda **arguments: next(iter(caller(**arguments)), None)


def _check_functions(plugin: object, trial: pluggy.PluginManager, project: HookProject) -> tuple[str, ...]:
    """Returns remarks on functions that should be written otherwise.

    Raises:
        TypeError, UnknownHookError: A function would never be called, or not as its author expects.
    """
    called: set[str] = set()
    for caller in trial.get_hookcallers(plugin) or ():
        called.add(caller.name)
        for implementation in caller.get_hookimpls():
            function = implementation.function
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{caller.name} must be a plain function: hooks are synchronous, it is `async def`")
            if implementation.wrapper or implementation.hookwrapper:
                raise TypeError(f"{caller.name} must be a plain function, not a wrapper of other plugins' hooks")
    remarks = []
    for hook in project.hooks:
        offered = getattr(plugin, hook, None)
        if callable(offered) and not hasattr(offered, f"{project.name}_impl"):
            if hook not in called:
                raise UnknownHookError(f"{hook} is not marked with @{project.marker}, so it would never be called")
            remarks.append(f"does not mark {hook} with @{project.marker}, as later versions will require")
    return tuple(remarks)


def _with_changes(info: PluginInfo, before: ProcessState | None) -> PluginInfo:
    return info if before is None else replace(info, remarks=(*info.remarks, *before.changes()))


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a plugin's own exception class may be broken too
        text = "(its message cannot be read)"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
