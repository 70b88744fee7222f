"""The command `kaito-fetch`: thin. Containers that fetch run it, and `kaito up` does."""

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kaito_core.errors import KaitoError, TransientFetchError
from kaito_core.settings import Settings

__all__ = ["app", "fetch_from_environment", "main"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

#: Exit status where a later fetch may succeed: EX_TEMPFAIL of sysexits.h.
_TRANSIENT = 75


@app.command()
def fetch(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URI... DIR",
            help="What to fetch, such as https://..., hf://owner/name[@revision][/folder] or the path of a folder, "
            "and the folder to create or replace. Several URIs are URLs of an adapter's files.",
            show_default=False,
        ),
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="Digest that the adapter's files must have, sha256:...", metavar="DIGEST")
    ] = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="List the installed sources, and exit with status 1 if one is broken.")
    ] = False,
) -> None:
    """Put an adapter's files into a folder, complete and right or not at all.

    Credentials are read from the environment: KAITO_SECRET_<KEY> for each key of the Secret that KAITO_SECRET names,
    or without it <KEY>. The exit status is 75 where the same fetch may succeed later; it then goes on where it ended.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs
    try:
        if sources:
            raise typer.Exit(_list_sources(Settings.from_env()))
        *uris, to = words or ("",)
        if not uris:
            raise typer.BadParameter("name what to fetch, and then the folder", param_hint="URI... DIR")
        found = fetch_from_environment(uris, Path(to), digest)
    except TransientFetchError as error:
        _fail(error, _TRANSIENT)
    except KaitoError as error:
        _fail(error, 1)
    print(f"{to}: {found}")


def fetch_from_environment(uris: list[str], to: Path, digest: str | None) -> str:
    """Puts an adapter's files into a folder as this process's settings and environment say, and returns their digest.

    Raises:
        ConfigError: A setting cannot be used.
        FetchError, TransientFetchError: See `AdapterFetch.fetch`.
    """
    from kaito_core.fetch.access import ProcessAccess, rules_of
    from kaito_core.fetch.adapter import AdapterFetch
    from kaito_core.fetch.cache import Cache
    from kaito_core.fetch.fetchers import Fetchers
    from kaito_core.fetch.progress import LogProgress, TerminalProgress

    settings = Settings.from_env()

    with TerminalProgress() if sys.stderr.isatty() else nullcontext(LogProgress()) as progress:
        one = AdapterFetch(
            Fetchers(settings),
            ProcessAccess(os.environ, rules_of(settings)),
            int(settings.fetch_max_gib * (1 << 30)),
            cache=Cache(Path(settings.fetch_cache_dir)) if settings.fetch_cache_dir else None,
            progress=progress,
        )
        return one.fetch(uris, to, digest)


def _list_sources(settings: Settings) -> int:
    from kaito_core.fetch.fetchers import Fetchers

    fetchers = Fetchers(settings)
    for scheme, fetcher in sorted(fetchers.by_scheme.items()):
        print(f"{scheme}://  {fetcher.name}")
    for info in fetchers.plugins:
        print(f"{info}: {info.state}{': ' * bool(info.error)}{info.error}")
    return 1 if any(info.state == "failed" for info in fetchers.plugins) else 0


def _fail(error: KaitoError, status: int) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(status)


def main() -> None:
    """Entry point."""
    app()
