"""One file from a source into a file on disk: resumed, retried and bounded.

What was fetched of it stays, with the version that it belongs to, so that also another process can go on.
"""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kaito_core.api.fetching import Content, RemoteFile
from kaito_core.errors import FetchError, TransientFetchError
from kaito_core.fetch.bounds import header_bytes, most_bytes, tensor_bytes
from kaito_core.fetch.progress import LogProgress, Progress

__all__ = ["Budget", "Patience", "download"]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a source is asked again.

    Attributes:
        tries: Tries in a row that bring nothing, after which the fetch ends.
        most: Tries in all, for servers that send a few bytes at a time.
        first_seconds: Longest pause after the first of them; each is twice as long as the one before.
        longest_seconds: Longest pause, also where the server asks for more.
        sleep: Waits.
    """

    tries: int = 6
    most: int = 100
    first_seconds: float = 1.0
    longest_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep

    def pause(self, failures: int, asked_seconds: float) -> float:
        """Returns how long to wait after so many failures: anything up to the longest, so that pods do not march."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** (failures - 1))
        return max(random.uniform(longest / 2, longest), min(asked_seconds, self.longest_seconds))


@dataclass(slots=True)
class Budget:
    """How many bytes a fetch may still write, over all its files.

    Attributes:
        most: All that it may write.
        files: Bytes by file.
    """

    most: int
    files: dict[str, int] = field(default_factory=dict)

    def left(self, name: str) -> int:
        """Returns how many bytes a file may have."""
        return self.most - sum(count for other, count in self.files.items() if other != name)


def download(
    file: RemoteFile,
    path: Path,
    budget: Budget,
    *,
    what: str,
    patience: Patience | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetches a file.

    Args:
        file: The file.
        path: Where to put it; what an earlier fetch of the same file left there is gone on with.
        budget: Bytes that may be written.
        what: The source in messages.
        patience: How often the source is asked again.
        progress: Is told how it goes.

    Raises:
        TransientFetchError: The source does not answer, or not to the end; what came stays.
        FetchError: The file is too large, or is not what it says it is; nothing stays.
        OSError: It cannot be written.
    """
    patience = patience or Patience()
    progress = progress or LogProgress()
    part = _Part(file, path, budget, what, progress)
    failures = 0
    for attempt in range(1, patience.most + 1):
        before = part.done
        try:
            part.go_on()
            return
        except TransientFetchError as error:
            failures = 1 if part.done > before else failures + 1
            if failures >= patience.tries or attempt == patience.most:
                part.forget_unless_resumable()
                raise
            pause = patience.pause(failures, error.retry_after_seconds)
            progress.says(f"{error}; it is asked again in {pause:.1f} s")
            patience.sleep(pause)
        except FetchError:
            part.forget()
            raise


class _Part:
    """What is there of a file."""

    def __init__(self, file: RemoteFile, path: Path, budget: Budget, what: str, progress: Progress) -> None:
        self._file, self._path, self._budget, self._what, self._progress = file, path, budget, what, progress
        self._notes = path.with_name(f"{path.name}.version")
        self._size = file.size
        self._header = 8  # bytes to have before there is more to learn from the header of the tensors
        self._expected: int | None = None  # bytes of the file, by that header
        self.version = self._noted()
        self.done = path.stat().st_size if self._is_resumable() and path.is_file() else 0

    def go_on(self) -> None:
        """Fetches what is missing.

        Raises:
            TransientFetchError: Not all came.
            FetchError: The file is refused.
        """
        self._refuse_excess(self._size or 0)
        if not (self._size is not None and self.done == self._size and self.done):
            offset = self.done if self._is_resumable() else 0
            with self._file.open(offset, self.version) as content:
                self._take(content)
        self._check_end()
        self._notes.unlink(missing_ok=True)
        self._progress.ends()

    def forget(self) -> None:
        """Removes what is there."""
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def forget_unless_resumable(self) -> None:
        """Removes what nobody could go on with."""
        if not self._is_resumable():
            self.forget()

    def _take(self, content: Content) -> None:
        if content.start not in (0, self.done) or (
            content.start and self.version and content.version not in ("", self.version)
        ):
            self.done, self.version = 0, ""
            raise TransientFetchError(f"{self._what}: {self._file.name} has changed while it was fetched")
        if content.start == 0:
            self._header, self._expected = 8, None
            self.version = content.version
            self._note()
        if content.size is not None:
            if self._file.size is not None and content.size != self._file.size:
                raise FetchError(
                    f"{self._what}: {self._file.name} has {content.size:,} bytes, the source lists {self._file.size:,}"
                )
            self._size = content.size
        self._refuse_excess(self._size or 0)
        self._progress.begins(self._file.name, content.start, self._size)
        self.done = content.start
        with self._path.open("r+b" if content.start else "wb") as target:
            target.truncate(content.start)
            target.seek(content.start)
            for chunk in content.chunks:
                self.done += len(chunk)
                self._refuse_excess(self.done)
                target.write(chunk)
                if self._expected is None and self._file.name.endswith(".safetensors"):
                    target.flush()
                    self._look_at_header()
                self._progress.moved(len(chunk))
        if self._size is not None and self.done < self._size:
            raise TransientFetchError(
                f"{self._what}: {self._file.name} ended after {self.done:,} of {self._size:,} bytes"
            )

    def _look_at_header(self) -> None:
        if self.done < self._header:
            return
        try:
            self._header = header_bytes(self._path) or self._header
            self._expected = tensor_bytes(self._path) if self.done >= self._header else None
        except FetchError as error:
            raise FetchError(f"{self._what}: {self._file.name} {error}") from error
        if self._expected is not None:
            self._refuse_excess(self._expected)
            if self._size is not None and self._size != self._expected:
                raise FetchError(
                    f"{self._what}: {self._file.name} has {self._size:,} bytes, its own header describes "
                    f"{self._expected:,}; save the adapter again"
                )

    def _refuse_excess(self, count: int) -> None:
        self._budget.files[self._file.name] = count
        most = self._budget.left(self._file.name)
        if self._file.kind == "file":
            most = most_bytes(self._file.name, most)
        if self._expected is not None and self._expected < count <= most:
            raise FetchError(f"{self._what}: {self._file.name} is longer than its own header says")
        if count > most:
            raise FetchError(
                f"{self._what}: {self._file.name} is larger than {most:,} bytes, the limit of a fetch "
                "(KAITO_FETCH_MAX_GIB)"
            )

    def _check_end(self) -> None:
        if self._file.name.endswith(".safetensors") and self._file.kind == "file":
            self._look_at_header()
            if self._expected is None or self.done != self._expected:
                # Without a length nobody can tell a connection that broke from a file that is cut.
                kind = FetchError if self._size is not None else TransientFetchError
                raise kind(f"{self._what}: {self._file.name} is cut off after {self.done:,} bytes")
        if self._file.digest and (found := _digest(self._path)) != self._file.digest:
            raise FetchError(
                f"{self._what}: {self._file.name} has the digest {found}, the source lists {self._file.digest}"
            )

    def _is_resumable(self) -> bool:
        return bool(self.version or self._file.digest)

    def _noted(self) -> str:
        try:
            noted = json.loads(self._notes.read_bytes())
            version = str(noted["version"])
            same = noted["digest"] == self._file.digest and self._file.version in ("", version)
        except (OSError, ValueError, LookupError, TypeError):
            same = False
        if not same:
            self.forget()
            return ""
        return version

    def _note(self) -> None:
        self.forget()
        if self._is_resumable():
            scratch = self._notes.with_name(f"{self._notes.name}.new")
            scratch.write_text(json.dumps({"version": self.version, "digest": self._file.digest}))
            os.replace(scratch, self._notes)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
