"""Fetches one adapter into a folder: complete and right, or nothing. Started again, it goes on where it ended."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from kaito_core.api.fetching import Access, RemoteFile, digest_of, is_adapter_file
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.assemble import assemble
from kaito_core.fetch.cache import Cache
from kaito_core.fetch.download import Budget, Patience, download
from kaito_core.fetch.fetchers import Fetchers
from kaito_core.fetch.network.rules import shown
from kaito_core.fetch.progress import LogProgress, Progress
from kaito_core.fetch.staging import place, staging

__all__ = ["AdapterFetch"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AdapterFetch:
    """How adapters are fetched.

    Attributes:
        fetchers: Who reads which scheme.
        access: Credentials and network.
        most: Largest adapter, in bytes.
        cache: Where adapters are kept by digest, None for nowhere.
        patience: How often a source is asked again.
        progress: Is told how it goes.
    """

    fetchers: Fetchers
    access: Access
    most: int
    cache: Cache | None = None
    patience: Patience = field(default_factory=Patience)
    progress: Progress = field(default_factory=LogProgress)

    def fetch(self, uris: Sequence[str], to: Path, digest: str | None = None) -> str:
        """Puts an adapter's files into the folder `to`, which is replaced as a whole, and returns their digest.

        Args:
            uris: One source, or several URLs of an adapter's files.
            to: The folder.
            digest: "sha256:..." that the files must have.

        Raises:
            FetchError: The folder is as it was, and nothing is left beside it.
            TransientFetchError: The folder is as it was; what came is left beside it, for the next fetch.
        """
        what = shown(uris[0])
        to = to.absolute()
        if digest is not None and _has(to, digest):
            return digest  # a container that was restarted
        try:
            with staging(to, "\n".join((*uris, digest or ""))) as folder:
                try:
                    made, found = self._made(tuple(uris), folder, digest, what)
                    place(made, to, folder / "old")
                except TransientFetchError:
                    raise
                except BaseException as error:
                    if isinstance(error, FetchError | OSError):
                        shutil.rmtree(folder, ignore_errors=True)
                    raise
                shutil.rmtree(folder, ignore_errors=True)
                return found
        except OSError as error:
            raise FetchError(f"{to}: {error.strerror or error}") from error

    def _made(self, uris: tuple[str, ...], folder: Path, digest: str | None, what: str) -> tuple[Path, str]:
        for left in ("new", "unpacked", "old"):  # of a process that was killed
            shutil.rmtree(folder / left, ignore_errors=True)
        if self.cache is None:
            return self._fetched(uris, folder, digest, what)
        with self.cache.turn(uris, digest, self.access.environ) as turn:
            if turn.copy(folder / "new"):
                self.progress.says(f"{what}: copied from the cache")
                return folder / "new", digest_of(folder / "new")
            made, found = self._fetched(uris, folder, digest, what)
            turn.keep(made, found)
            return made, found

    def _fetched(self, uris: tuple[str, ...], folder: Path, digest: str | None, what: str) -> tuple[Path, str]:
        files = [file for uri in uris for file in self._listed(uri)]
        budget, fetched = Budget(self.most), []
        names: set[str] = set()
        for number, file in enumerate(files):
            if file.kind == "file" and file.name in names:
                raise FetchError(f"{what} has {file.name!r} twice")
            names.add(file.name)
            path = folder / f"{number}-{file.kind}"
            download(file, path, budget, what=what, patience=self.patience, progress=self.progress)
            fetched.append((file, path))
        made = assemble(fetched, folder, self.most, what)
        found = digest_of(made)
        if digest is not None and found != digest:
            raise FetchError(f"{what} has the digest {found}, expected {digest}")
        return made, found

    def _listed(self, uri: str) -> list[RemoteFile]:
        fetcher = self.fetchers.of(uri)
        files = self._patiently(lambda: list(fetcher.files(uri, self.access)))
        return [file for file in files if file.kind != "file" or is_adapter_file(file.name)]

    def _patiently(self, call: Callable[[], _T]) -> _T:
        for failures in range(1, self.patience.tries):
            try:
                return call()
            except TransientFetchError as error:
                pause = self.patience.pause(failures, error.retry_after_seconds)
                self.progress.says(f"{error}; it is asked again in {pause:.1f} s")
                self.patience.sleep(pause)
        return call()


def _has(folder: Path, digest: str) -> bool:
    with suppress(OSError):
        return digest_of(folder) == digest
    return False
