"""The operator's own HTTP: /livez, /readyz and /metrics."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from kaito_core.controller.metrics import Metrics

__all__ = ["HealthServer"]


class HealthServer:
    """Answers probes from the operator's event loop, so that a loop that is stuck fails them.

    Args:
        metrics: What /metrics shows.
        is_ready: Whether the caches are filled.
    """

    def __init__(self, metrics: Metrics, is_ready: Callable[[], bool]) -> None:
        self._metrics, self._is_ready = metrics, is_ready
        app = web.Application()
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._render)]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Starts to answer on all addresses; port 0: does not.

        Raises:
            OSError: The port is taken.
        """
        if port:
            await self._runner.setup()
            await web.TCPSite(self._runner, port=port).start()

    async def close(self) -> None:
        """Stops answering."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._is_ready()
        return web.Response(text="ok" if ready else "the caches are not filled yet", status=200 if ready else 503)

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
