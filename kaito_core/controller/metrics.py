"""What the operator counts, for Prometheus."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kaito_core.plugins import PluginInfo

__all__ = ["Metrics"]


class Metrics:
    """The operator's metrics, in a registry of their own: a process may start the operator more than once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.passes = Counter("kaito_passes", "Passes, by how they ended.", ["outcome"], registry=self.registry)
        self.pass_seconds = Histogram("kaito_pass_seconds", "Duration of a pass.", registry=self.registry)
        self.actions = Counter("kaito_actions", "Writes, by what they did.", ["action"], registry=self.registry)
        self.workspaces = Gauge("kaito_workspaces", "Workspaces in the watched namespaces.", registry=self.registry)
        self.plugins_failed = Gauge("kaito_plugins_failed", "Plugins left out as broken.", registry=self.registry)
        self._plugin_info = Gauge(
            "kaito_plugin_info",
            "1 for each plugin that was found: loaded, failed or skipped.",
            ["name", "distribution", "state"],
            registry=self.registry,
        )
        self.refreshed = Gauge(
            "kaito_caches_refreshed_timestamp_seconds", "When the caches were last listed anew.", registry=self.registry
        )

    def tell_plugins(self, plugins: Iterable[PluginInfo]) -> None:
        """Says which plugins were found at start, and how many of them are broken."""
        found = list(plugins)
        self.plugins_failed.set(sum(info.state == "failed" for info in found))
        for info in found:
            self._plugin_info.labels(info.name, info.distribution, info.state).set(1)

    def render(self) -> bytes:
        """Returns the metrics in the text format."""
        return generate_latest(self.registry)
