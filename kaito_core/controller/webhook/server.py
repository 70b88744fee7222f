"""The admission webhook's HTTPS server, whose certificate is kept in a Secret.

kopf's admission server is not used. It runs inside kopf's operator, which only the leader runs; each process makes an
authority of its own, so that replicas would overwrite each other's; and it writes the whole webhook configuration,
which `kaito install` prints here, so that users can read and change it. The operator only adds the authority to it.
"""

import asyncio
import base64
import contextlib
import json
import logging
import random
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from kaito_core.api import KubeObject
from kaito_core.api.workload import MANAGED_BY_LABEL, MANAGER
from kaito_core.controller.backoff import backoff_seconds
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.webhook.admission import MalformedReviewError, review_response
from kaito_core.controller.webhook.certificates import Bundle, make_bundle, read_bundle, renewed
from kaito_core.controller.webhook.objects import (
    PATH,
    SECRETS,
    WEBHOOK_NAME,
    WEBHOOKS,
    configuration_name,
    service_hosts,
)
from kaito_core.errors import BackendError, ClusterError
from kaito_core.plugins import PluginRegistry

__all__ = ["Webhook"]

log = logging.getLogger(__name__)

_LARGEST_BYTES = 16 << 20  # a review holds two objects, and the API stores objects of up to 3 MiB as JSON
_CHECK_SECONDS = 600.0


class Webhook:
    """The endpoint of one replica. Every replica has one, also while it stands by.

    Args:
        cluster: Where the Secret and the webhook configuration are.
        registry: The plugins, which check Workspaces too.
        thread: Where their hooks are called.
        namespace: Namespace of the operator.
        port: Port to listen on.
        now: The clock.
        check_seconds: Between two checks of the certificate.
    """

    def __init__(
        self,
        cluster: KubernetesCluster,
        registry: PluginRegistry,
        thread: PluginThread,
        namespace: str,
        port: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._cluster, self._registry, self._thread, self._namespace = cluster, registry, thread, namespace
        self._now, self._check_seconds = now, check_seconds
        self._hosts = service_hosts(namespace)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._used: Bundle | None = None
        app = web.Application(client_max_size=_LARGEST_BYTES)
        app.add_routes([web.post(PATH, self._validate)])
        self._runner = web.AppRunner(app, access_log=None)
        self._port = port

    async def run(self) -> None:
        """Listens as soon as there is a certificate, and keeps the certificate valid, until cancelled."""
        failures = 0
        while True:
            try:
                await self.refresh()
            except Exception as error:  # whatever it is: without this task there is no admission, and nobody notices
                wait = min(backoff_seconds(failures, random.random()), self._check_seconds)
                failures += 1
                expected = isinstance(error, ClusterError | OSError)
                log.warning(
                    "the admission webhook cannot be set up: %s; trying again in %.1f s",
                    error if expected else repr(error),
                    wait,
                    exc_info=not expected,
                )
            else:
                failures, wait = 0, self._check_seconds
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def refresh(self) -> None:
        """Makes sure that there is a certificate, that it is in use, and that the API server trusts it.

        Raises:
            ClusterError: The Secret or the webhook configuration cannot be read or written, or the Secret is unusable.
            OSError: The port is taken.
        """
        bundle = await self._bundle()
        # Trusted before it is used: a configuration with the new authority still holds the old one.
        await self._trust(bundle)
        if bundle != self._used:
            _load(self._context, bundle)
            self._used = bundle
        if not self._runner.sites:
            await self._runner.setup()
            site = web.TCPSite(self._runner, port=self._port, ssl_context=self._context)
            await site.start()
            log.info("the admission webhook answers on port %d", self._port)

    async def _bundle(self) -> Bundle:
        """Returns the certificate of the Secret, after making or renewing it where that is due and it is ours."""
        secret = await self._cluster.get(SECRETS, WEBHOOK_NAME, self._namespace)
        data = (secret or {}).get("data") or {}
        bundle = read_bundle(data)
        if data and bundle is None and "ca.key" not in data:
            message = f"the Secret {self._namespace}/{WEBHOOK_NAME} must hold tls.crt and tls.key that belong together"
            raise ClusterError(f"{message}: correct it, or delete it and the operator makes one")
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
                # Its resource version lets only one of several replicas succeed.
                await self._cluster.replace(SECRETS, {**secret, "data": {**data, **fresh.to_data()}})
        except ClusterError as error:
            if error.status == 409:
                return await self._bundle()  # another replica was faster; its certificate is used
            raise
        log.info("the certificate of the admission webhook is %s", "made" if bundle is None else "renewed")
        return fresh

    async def _trust(self, bundle: Bundle) -> None:
        """Writes the authorities into the webhook configuration, where it exists and holds others."""
        name = configuration_name(self._namespace)
        configuration = await self._cluster.get(WEBHOOKS, name)
        if configuration is None:
            log.warning("%s/%s is missing, so nothing calls the webhook", WEBHOOKS.kind, name)
            return
        trusted = base64.b64encode(bundle.authorities).decode()
        hooks = configuration.get("webhooks") or []
        if not bundle.authorities or all(hook["clientConfig"].get("caBundle") == trusted for hook in hooks):
            return
        changed = [{**hook, "clientConfig": {**hook["clientConfig"], "caBundle": trusted}} for hook in hooks]
        try:
            await self._cluster.replace(WEBHOOKS, {**configuration, "webhooks": changed})
        except ClusterError as error:
            if error.status != 409:  # another replica was faster; the next check shows whether it wrote the same
                raise

    def _manifest(self, bundle: Bundle) -> KubeObject:
        metadata = {"name": WEBHOOK_NAME, "namespace": self._namespace, "labels": {MANAGED_BY_LABEL: MANAGER}}
        identity = {"apiVersion": SECRETS.api_version, "kind": SECRETS.kind, "metadata": metadata}
        return {**identity, "type": "kubernetes.io/tls", "data": bundle.to_data()}

    async def _validate(self, request: web.Request) -> web.Response:
        try:
            response = await self._thread.run(review_response, await request.json(), self._registry)
            return web.json_response(response)
        except MalformedReviewError as error:
            return web.Response(status=400, text=str(error))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            return web.Response(status=400, text="the body must be JSON")
        except BackendError as error:
            log.warning("a Workspace could not be checked on admission: %s", error)
            return web.Response(status=503, text=str(error))


def _load(context: ssl.SSLContext, bundle: Bundle) -> None:
    """Uses a certificate for connections made from now on; Python's ssl reads certificates from files only."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kaito-")))
        certificate, key = folder / "tls.crt", folder / "tls.key"
        certificate.write_bytes(bundle.certificate)
        key.touch(mode=0o600)
        key.write_bytes(bundle.key)
        context.load_cert_chain(certificate, key)
