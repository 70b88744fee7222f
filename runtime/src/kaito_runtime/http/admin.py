"""The admin routes: vLLM's requests to load and unload an adapter while the server runs.

`adapters.manager` keeps such adapters apart from those of the configuration; `auth` checks the admin token.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import Field

from kaito_core.api.fetching import ADAPTER_FILES
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.requests import Body

__all__ = ["ADMIN_PATHS", "LoadRequest", "UnloadRequest", "adapter_folder", "add_admin_routes"]

LOAD_PATH, UNLOAD_PATH = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
ADMIN_PATHS = frozenset({LOAD_PATH, UNLOAD_PATH})
# Wider than the operator's rule for names, for clients of vLLM; no comma, which separates names in a metric.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")

Name = Annotated[str, Field(min_length=1, max_length=253)]


class LoadRequest(Body):
    """Body of POST /v1/load_lora_adapter, the same as vLLM's."""

    lora_name: Name
    lora_path: str = Field(min_length=1, max_length=4096, description="A folder under the server's --adapters-dir.")
    load_inplace: bool = Field(default=False, description="Replace the adapter that was loaded under this name.")


class UnloadRequest(Body):
    """Body of POST /v1/unload_lora_adapter, the same as vLLM's."""

    lora_name: Name
    lora_int_id: int | None = Field(default=None, description="Ignored.")


def add_admin_routes(app: FastAPI, adapters: AdapterManager, *, enabled: bool) -> None:
    """Adds the routes to `app`; where they are off, they respond with how to turn them on."""

    def check_enabled() -> None:
        if not enabled:
            raise RequestError(
                "loading adapters by request is off: start the server with --admin-token-file FILE",
                status=404,
                code="admin_off",
            )

    @app.post(LOAD_PATH)
    async def load(body: LoadRequest) -> PlainTextResponse:
        check_enabled()
        if _NAME.fullmatch(body.lora_name) is None:
            message = f"lora_name must be a letter or digit, then letters, digits and . _ - /, got '{body.lora_name}'"
            raise RequestError(message, param="lora_name")
        adapters.check_guest(body.lora_name, replaces=body.load_inplace)
        folder = adapter_folder(adapters.adapters_dir, body.lora_path)
        await adapters.load_guest(body.lora_name, folder, replaces=body.load_inplace)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")

    @app.post(UNLOAD_PATH)
    async def unload(body: UnloadRequest) -> PlainTextResponse:
        check_enabled()
        await adapters.unload_guest(body.lora_name)
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def adapter_folder(root: Path | None, path: str) -> Path:
    """Returns the folder that a request names. Nothing outside of `root` is read, not through links either.

    Raises:
        RequestError: The path leads outside (400), or the folder does not exist (404).
    """
    if root is None:
        raise RequestError("lora_path: the server was started without --adapters-dir", param="lora_path")
    outside = RequestError(
        f"lora_path must be a folder under the server's --adapters-dir, got '{path}'", param="lora_path"
    )
    # The text is checked first, so that a response never reveals what exists elsewhere.
    if "\0" in path or ".." in Path(path).parts or not (root.absolute() / path).is_relative_to(root.absolute()):
        raise outside
    try:
        top = root.resolve()
        folder = (top / Path(path).relative_to(root.absolute()) if Path(path).is_absolute() else top / path).resolve()
        inside = [folder, *((folder / name).resolve() for name in ADAPTER_FILES)]
        exists = folder.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, or links in a circle
        raise outside from error
    if folder == top or not all(each.is_relative_to(top) for each in inside):
        raise outside
    if not exists:
        raise RequestError(
            f"lora_path: folder '{path}' does not exist under --adapters-dir",
            status=404,
            code="adapter_not_found",
            param="lora_path",
        )
    return root / folder.relative_to(top)  # under `root` as it was given: other ranks resolve it their own way
