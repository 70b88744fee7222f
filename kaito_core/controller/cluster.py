"""The client of the Kubernetes API. The only module that imports the Kubernetes package, and that as transport alone.

The verbs are in `verbs`; paths, retries and the meaning of answers in `api_calls`.
"""

from collections.abc import Iterable
from typing import Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio import config as client_config
from kubernetes.aio.client import ApiClient, Configuration

from kaito_core.api import ResourceType
from kaito_core.api.workload import MANAGER
from kaito_core.controller.api_calls import JSON, Call, Response
from kaito_core.controller.records import Connection
from kaito_core.controller.verbs import Verbs
from kaito_core.controller.watch.cache import Cache
from kaito_core.errors import ConfigError

__all__ = ["KubernetesCluster", "connect"]

_TIMEOUT_SECONDS, _CONNECT_SECONDS = 60.0, 10.0


async def connect(
    cache: Cache,
    types: Iterable[ResourceType],
    kubeconfig: str | None = None,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> "KubernetesCluster":
    """Returns the cluster of a kubeconfig or of the pod that this process runs in; sends nothing yet.

    Args:
        cache: Answers reads where it is complete.
        types: Types whose manifests can be applied without asking the API for their plural.
        kubeconfig: Path; None for the pod's service account, else the user's default.
        timeout_seconds: Longest wait for an answer.

    Raises:
        ConfigError: There is no usable configuration.
    """
    configuration = await _configuration(kubeconfig)
    configuration.proxy = configuration.proxy or _proxy(configuration.host)
    return KubernetesCluster(configuration, cache, types, timeout_seconds)


async def _configuration(kubeconfig: str | None) -> Configuration:
    configuration = Configuration()
    try:
        if kubeconfig is None:
            try:
                client_config.load_incluster_config(client_configuration=configuration)
                return configuration
            except client_config.ConfigException:
                pass  # not in a pod
        await client_config.load_kube_config(
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
    except (client_config.ConfigException, OSError) as error:
        where = kubeconfig or "neither a service account nor $KUBECONFIG or ~/.kube/config"
        raise ConfigError(f"no cluster to connect to: {where}: {error}") from error
    return configuration


def _proxy(server: str) -> str | None:
    """Returns the proxy that the environment names for a server."""
    url = urlsplit(server)
    return None if proxy_bypass(url.hostname or "") else getproxies().get(url.scheme)


class KubernetesCluster(Verbs):
    """A cluster, reached through the Kubernetes client. `connect` makes one."""

    def __init__(
        self,
        configuration: Configuration,
        cache: Cache,
        types: Iterable[ResourceType] = (),
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        super().__init__(self._send_once, cache, types)
        # aiohttp would otherwise look for proxies and a netrc before each request, each time in a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = f"{MANAGER}-operator"
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(_CONNECT_SECONDS, timeout_seconds)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def connection(self) -> Connection:
        """Returns how to connect; expiring tokens are read again."""
        key = await self._configuration.get_api_key_with_prefix("BearerToken") or ""
        return Connection(
            server=self._configuration.host,
            token=key.split(" ", 1)[-1].strip(),
            ca_file=self._configuration.ssl_ca_cert,
            certificate_file=self._configuration.cert_file,
            key_file=self._configuration.key_file,
            insecure=not self._configuration.verify_ssl,
            proxy=self._configuration.proxy,
        )

    async def _send_once(self, call: Call) -> Response:
        headers = {"Content-Type": call.content_type, "Accept": JSON}
        request = await self._client.param_serialize(
            call.method, call.target, header_params=headers, body=call.body, auth_settings=["BearerToken"]
        )
        response = await self._client.call_api(*request, _request_timeout=self._timeout)
        body = await response.read()
        return Response(response.status, response.getheader("Retry-After", ""), body)
