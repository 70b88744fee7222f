"""The admission webhook as a server: its certificate is kept in a Secret, and what is asked is answered over HTTPS.

kopf's own admission server is not used: it runs inside kopf's operator, which only the leader runs; each process makes
an authority of its own, so that replicas would overwrite each other's; and it writes its whole configuration by itself,
where ours is printed by `kaito install` for all to read, and the operator only adds the authority.
"""

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from kaito_core.api import KubeObject
from kaito_core.api.workload import MANAGED_BY_LABEL, MANAGER
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.webhook.admission import MalformedReviewError, answer
from kaito_core.controller.webhook.certificates import Bundle, make_bundle, read_bundle, renewed
from kaito_core.controller.webhook.objects import PATH, SECRETS, WEBHOOK_NAME, WEBHOOKS, service_hosts
from kaito_core.errors import ClusterError
from kaito_core.plugins import PluginRegistry

__all__ = ["Webhook"]

log = logging.getLogger(__name__)

_LARGEST_BYTES = 16 << 20  # a review holds two objects, and the API stores some of 3 MiB as JSON
_CHECK_SECONDS, _RETRY_SECONDS = 600.0, 5.0


class Webhook:
    """One replica's endpoint. Every replica answers, also those that stand by.

    Args:
        cluster: Where the Secret and the configuration are.
        registry: The plugins, which are asked too.
        namespace: Namespace of the operator.
        port: Port to answer on.
        now: The clock.
        check_seconds: How often the certificate is looked at.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        registry: PluginRegistry,
        namespace: str,
        port: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._cluster, self._registry, self._namespace = cluster, registry, namespace
        self._now, self._check_seconds = now, check_seconds
        self._hosts = service_hosts(namespace)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._shown: Bundle | None = None
        app = web.Application(client_max_size=_LARGEST_BYTES)
        app.add_routes([web.post(PATH, self._validate)])
        self._runner = web.AppRunner(app, access_log=None)
        self._port = port
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to answer, as soon as there is a certificate."""
        self._task = asyncio.create_task(self._run(), name="webhook")

    async def close(self) -> None:
        """Stops answering."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._runner.cleanup()

    async def _run(self) -> None:
        while True:
            wait = self._check_seconds
            try:
                await self.refresh()
            except (ClusterError, OSError, ssl.SSLError) as error:
                log.warning("the admission webhook: %s; it is tried again", error)
                wait = min(_RETRY_SECONDS, wait)
            await asyncio.sleep(wait)

    async def refresh(self) -> None:
        """Sees to it that there is a certificate, that it is shown, and that the API server trusts it.

        Raises:
            ClusterError: The Secret or the configuration cannot be read or written.
            OSError: The port is taken.
        """
        bundle = await self._bundle()
        await self._trust(
            bundle
        )  # before it is shown: an API server that knows the new authority knows the old one too
        if bundle != self._shown:
            _load(self._context, bundle)
            self._shown = bundle
        if not self._runner.sites:
            await self._runner.setup()
            site = web.TCPSite(self._runner, port=self._port, ssl_context=self._context)
            await site.start()
            log.info("the admission webhook answers on port %d", self._port)

    async def _bundle(self) -> Bundle:
        """Returns the Secret's certificate; makes or renews it where it is ours and due."""
        secret = await self._cluster.get(SECRETS, WEBHOOK_NAME, self._namespace)
        data = (secret or {}).get("data") or {}
        bundle = read_bundle(data)
        if data and bundle is None and "ca.key" not in data:
            what = f"the Secret {self._namespace}/{WEBHOOK_NAME} must hold tls.crt and tls.key that belong together"
            raise ClusterError(f"{what}: put it right, or delete it and the operator makes one")
        fresh = (
            renewed(bundle, self._hosts, self._now()) if bundle is not None else make_bundle(self._hosts, self._now())
        )
        if fresh is None:
            assert bundle is not None
            return bundle
        try:
            if secret is None:
                await self._cluster.create(SECRETS, self._manifest(fresh))
            else:
                # The resource version in it lets only one of several replicas succeed.
                await self._cluster.replace(SECRETS, {**secret, "data": {**data, **fresh.to_data()}})
        except ClusterError as error:
            if error.status == 409:
                return await self._bundle()  # another replica was faster, and its certificate is taken
            raise
        log.info("the certificate of the admission webhook is %s", "made" if bundle is None else "renewed")
        return fresh

    async def _trust(self, bundle: Bundle) -> None:
        """Writes the authorities into the configuration, where it exists and says something else."""
        configuration = await self._cluster.get(WEBHOOKS, WEBHOOK_NAME)
        if configuration is None:
            log.warning("there is no %s/%s: nothing asks the webhook", WEBHOOKS.kind, WEBHOOK_NAME)
            return
        trusted = base64.b64encode(bundle.authorities).decode()
        hooks = configuration.get("webhooks") or []
        if not bundle.authorities or all(hook["clientConfig"].get("caBundle") == trusted for hook in hooks):
            return
        changed = [{**hook, "clientConfig": {**hook["clientConfig"], "caBundle": trusted}} for hook in hooks]
        try:
            await self._cluster.replace(WEBHOOKS, {**configuration, "webhooks": changed})
        except ClusterError as error:
            if error.status != 409:  # another replica was faster; the next look shows whether it wrote the same
                raise

    def _manifest(self, bundle: Bundle) -> KubeObject:
        metadata = {"name": WEBHOOK_NAME, "namespace": self._namespace, "labels": {MANAGED_BY_LABEL: MANAGER}}
        identity = {"apiVersion": SECRETS.api_version, "kind": SECRETS.kind, "metadata": metadata}
        return {**identity, "type": "kubernetes.io/tls", "data": bundle.to_data()}

    async def _validate(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(answer(await request.json(), self._registry))
        except MalformedReviewError as error:
            return web.Response(status=400, text=str(error))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return web.Response(status=400, text="the body must be JSON")


def _load(context: ssl.SSLContext, bundle: Bundle) -> None:
    """Shows a certificate to connections that are made from now on; Python's ssl reads files only."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-")))
        certificate, key = folder / "tls.crt", folder / "tls.key"
        certificate.write_bytes(bundle.certificate)
        key.touch(mode=0o600)
        key.write_bytes(bundle.key)
        context.load_cert_chain(certificate, key)
