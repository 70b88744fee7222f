"""The operator's metrics, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kaito_core.controller.records import Write
from kaito_core.plugins import PluginInfo

__all__ = ["LABELS", "Metrics"]

_READY_BUCKETS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # seconds; machines and weights take minutes

#: Labels of those metrics that have any.
LABELS: Mapping[str, tuple[str, ...]] = {
    "kaito_passes": ("outcome",),
    "kaito_actions": ("action",),
    "kaito_api_writes": ("kind", "subresource", "verb", "code"),
    "kaito_ready_seconds": ("stage",),
    "kaito_provider_errors": ("provider", "error"),
    "kaito_plugin_info": ("name", "distribution", "state"),
}


class Metrics:
    """The metrics, in a registry of their own, since a process may run the operator more than once."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leader = self._gauge("leader", "1 where this operator acts, 0 where it stands by.")
        self.passes = self._counter("passes", "Passes, by how they ended.")
        self.pass_seconds = Histogram("kaito_pass_seconds", "Duration of a pass.", registry=self.registry)
        self.queue_depth = self._gauge("queue_depth", "Workspaces that wait for a pass.")
        self.actions = self._counter("actions", "What passes did, by kind of action.")
        self.api_writes = self._counter(
            "api_writes",
            "Attempts to write to the Kubernetes API, events and the Lease included, by kind and HTTP status; 0: none.",
        )
        self.ready_seconds = Histogram(
            "kaito_ready_seconds",
            "Time from the first pass for a new Workspace to its nodes, to its server, and until it was ready.",
            LABELS["kaito_ready_seconds"],
            buckets=_READY_BUCKETS,
            registry=self.registry,
        )
        self.provider_errors = self._counter("provider_errors", "Errors of node providers.")
        self.workspaces = self._gauge("workspaces", "Workspaces in the watched namespaces.")
        self.plugins_failed = self._gauge("plugins_failed", "Plugins left out as broken.")
        self.plugin_info = self._gauge("plugin_info", "1 for each plugin that was found: loaded, failed or skipped.")
        self.refreshed = self._gauge("caches_refreshed_timestamp_seconds", "When the caches were last listed anew.")
        self.watches_silent = self._gauge("watches_silent", "Watches that have been silent for too long.")

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"kaito_{name}", meaning, LABELS.get(f"kaito_{name}", ()), registry=self.registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"kaito_{name}", meaning, LABELS.get(f"kaito_{name}", ()), registry=self.registry)

    def show_plugins(self, plugins: Iterable[PluginInfo]) -> None:
        """Sets the metrics of the plugins found at start."""
        found = list(plugins)
        self.plugins_failed.set(sum(info.state == "failed" for info in found))
        for info in found:
            self.plugin_info.labels(info.name, info.distribution, info.state).set(1)

    def follow(self, gauge: Gauge, count: Callable[[], int]) -> None:
        """Makes a gauge show what a function returns when it is read."""
        gauge.set_function(lambda: float(count()))

    def count_write(self, write: Write) -> None:
        """Counts an attempt to write to the Kubernetes API."""
        self.api_writes.labels(write.resource.kind, write.subresource, write.verb, str(write.status)).inc()

    def count_provider_error(self, provider: str, error: Exception) -> None:
        """Counts an error of a node provider."""
        self.provider_errors.labels(provider, type(error).__name__).inc()

    def render(self) -> bytes:
        """Returns the metrics in the text format."""
        return generate_latest(self.registry)
