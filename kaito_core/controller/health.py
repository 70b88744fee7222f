"""The operator's HTTP server: /livez, /readyz and /metrics. `app` decides what alive and ready mean."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from kaito_core.controller.metrics import Metrics

__all__ = ["HealthServer"]


class HealthServer:
    """Answers probes from the operator's event loop, so that they fail where the loop is stuck.

    Args:
        metrics: Shown by /metrics.
        why_dead: Returns why the operator must be restarted, "" where it is alive.
        why_unready: Returns what the operator waits for, "" where it is ready.
    """

    def __init__(
        self, metrics: Metrics, why_dead: Callable[[], str], why_unready: Callable[[], Awaitable[str]]
    ) -> None:
        self._metrics, self._why_dead, self._why_unready = metrics, why_dead, why_unready
        app = web.Application()
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._render)]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, port: int) -> None:
        """Starts to listen on all addresses; with port 0 does nothing.

        Raises:
            OSError: The port is taken.
        """
        if port:
            await self._runner.setup()
            await web.TCPSite(self._runner, port=port).start()

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _response(self._why_dead())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _response(await self._why_unready())

    async def _render(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _response(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
