"""Metrics for Prometheus: vLLM's names where autoscalers and gateways read them, our own for each adapter."""

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kaito_runtime.adapters.catalog import AdapterState
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine
from kaito_runtime.http.key_limits import CURRENT_KEY, KeyLimits
from kaito_runtime.keys import ApiKeys

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counts requests and tokens as they come; figures of engine and adapters are read when Prometheus scrapes."""

    def __init__(
        self,
        engine: Engine,
        adapters: AdapterManager,
        api_keys: ApiKeys | None = None,
        limits: KeyLimits | None = None,
    ) -> None:
        self._adapters = adapters
        self._limits = limits or KeyLimits()
        self._registry = CollectorRegistry()
        self._registry.register(_Snapshot(engine, adapters, api_keys))
        counter = self._counter
        self._requests = counter("kaito_requests", "Requests that were accepted.", ["model"])
        self._adapter_requests = counter(
            "kaito_adapter_requests", "Accepted requests, by adapter that applies.", ["adapter"]
        )
        self._key_requests = counter("kaito_key_requests", "Accepted requests, by name of the API key.", ["key"])
        self._key_tokens = counter("kaito_key_tokens", "Tokens of prompts and answers, by API key.", ["key"])
        self._refused = counter("kaito_requests_refused", "Requests that ended with an error, by code.", ["code"])
        self._prompt = counter("vllm:prompt_tokens", "Tokens of prompts.", ["model_name"])
        self._generated = counter("vllm:generation_tokens", "Tokens that were generated.", ["model_name"])
        self._first = self._histogram("vllm:time_to_first_token_seconds", "Time from the request to its first token.")
        self._next = self._histogram("vllm:time_per_output_token_seconds", "Time between two tokens of a request.")

    def request(self, model: str, adapters: Iterable[str], prompt_tokens: int) -> None:
        """Counts a request that the engine has accepted."""
        self._requests.labels(model).inc()
        self._prompt.labels(self._model).inc(prompt_tokens)
        for adapter in adapters:
            self._adapter_requests.labels(adapter).inc()
        if key := CURRENT_KEY.get():
            self._key_requests.labels(key).inc()
            self._count_tokens(key, prompt_tokens)

    def token(self, seconds: float, *, first: bool) -> None:
        """Counts a token and the time since the one before, or since the request."""
        self._generated.labels(self._model).inc()
        if key := CURRENT_KEY.get():
            self._count_tokens(key, 1)
        (self._first if first else self._next).labels(self._model).observe(seconds)

    def _count_tokens(self, key: str, count: int) -> None:
        self._key_tokens.labels(key).inc(count)
        self._limits.add_tokens(key, count)

    def refused(self, code: str) -> None:
        """Counts an error response."""
        self._refused.labels(code).inc()

    def render(self) -> bytes:
        """Returns Prometheus' text format."""
        return generate_latest(self._registry)

    @property
    def _model(self) -> str:
        return self._adapters.catalog.config.model.name

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ["model_name"], buckets=_SECONDS, registry=self._registry)


class _Snapshot(Collector):
    def __init__(
        self,
        engine: Engine,
        adapters: AdapterManager,
        api_keys: ApiKeys | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine = engine
        self._api_keys = api_keys
        self._adapters = adapters
        self._clock = clock

    def collect(self) -> Iterable[Metric]:
        """Yields the current figures."""
        stats, config = self._engine.stats(), self._adapters.catalog.config
        model = {"model_name": config.model.name}
        yield _gauge("vllm:num_requests_running", "Requests in the batch.", model, stats.running)
        yield _gauge("vllm:num_requests_waiting", "Requests that wait for a place in the batch.", model, stats.waiting)
        yield _gauge("vllm:kv_cache_usage_perc", "Share of the key-value cache in use, 0 to 1.", model, stats.cache_use)
        # The same under the name of vLLM's earlier releases, which some gateways read.
        yield _gauge("vllm:gpu_cache_usage_perc", "As vllm:kv_cache_usage_perc.", model, stats.cache_use)
        asked, found = stats.prefix_tokens
        yield _count("vllm:prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", model, asked)
        yield _count("vllm:prefix_cache_hits", "Prompt tokens found in the prefix cache.", model, found)
        lora = {
            "running_lora_adapters": ",".join(stats.running_adapters),
            "waiting_lora_adapters": ",".join(stats.waiting_adapters),
            "max_lora": str(max(len(self._adapters.catalog.declared), 1)),
        }
        yield _gauge("vllm:lora_requests_info", "Adapters in use; the value is the time.", lora, self._clock())
        passes = CounterMetricFamily("kaito_forward_passes", "Forward passes, by outcome.", labels=["outcome"])
        passes.add_metric(["success"], stats.passes)
        passes.add_metric(["failure"], stats.failures)
        yield passes
        yield _gauge("kaito_configuration_generation", "Generation of the configuration.", {}, config.generation)
        if (serving := self._adapters.catalog.serving_generation) is not None:
            text = "Generation that the default model id answers with; absent while it cannot be served."
            yield _gauge("kaito_serving_generation", text, {}, serving)
        if self._api_keys is not None:
            text = "1 while the API keys cannot be read again, and those of before are valid."
            yield _gauge("kaito_api_keys_stale", text, {}, float(bool(self._api_keys.error)))
        strength = GaugeMetricFamily("kaito_adapter_strength", "Declared strength.", labels=["adapter"])
        memory = GaugeMetricFamily("kaito_adapter_memory_bytes", "Memory of a loaded adapter.", labels=["adapter"])
        seconds = GaugeMetricFamily("kaito_adapter_load_seconds", "Time that loading it took.", labels=["adapter"])
        state = GaugeMetricFamily("kaito_adapter_state", "1 for the state it is in.", labels=["adapter", "state"])
        for name, declared in self._adapters.catalog.declared.items():
            strength.add_metric([name], declared)
            memory.add_metric([name], stats.resident_bytes.get(name, 0))
            seconds.add_metric([name], self._adapters.load_seconds.get(name, 0.0))
            for each in AdapterState:
                state.add_metric([name, each], float(self._adapters.catalog.status(name).state is each))
        yield from (strength, memory, seconds, state)


def _gauge(name: str, text: str, labels: dict[str, str], value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _count(name: str, text: str, labels: dict[str, str], value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
