"""The chat page at "/": one static file, served as it is. What it asks for goes through the public API."""

from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

__all__ = ["add_chat_page"]

# Nothing is loaded from anywhere, and nobody may frame the page to steal clicks.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_chat_page(app: FastAPI) -> None:
    """Serves the page at "/"."""
    page = files("kaito_runtime.http").joinpath("static", "index.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def chat_page() -> HTMLResponse:
        return HTMLResponse(page, headers=_HEADERS)
