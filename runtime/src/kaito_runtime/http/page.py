"""The chat page at "/": one static file. Its requests go through the public API."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

__all__ = ["add_chat_page"]

# The page loads nothing from other hosts, and no site may frame it to steal clicks.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_chat_page(app: FastAPI) -> None:
    """Adds the page to `app`."""
    page = files("kaito_runtime.http").joinpath("static", "index.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def chat_page() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)
