"""What the operator counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

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
        self.refreshed = Gauge(
            "kaito_caches_refreshed_timestamp_seconds", "When the caches were last listed anew.", registry=self.registry
        )

    def render(self) -> bytes:
        """Returns the metrics in the text format."""
        return generate_latest(self.registry)
