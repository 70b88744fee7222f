"""The loaded adapters of one model: who owns which rank pages, and for how long.

A version is immutable. It is loaded into free pages, or kept in main memory while there are none, and acquired by every
request that uses it. A request's adapters are pinned while it is computed: then they are in pages. Whatever is not
pinned can be moved out to make room, the least recently used first. A version is gone once it is retired and the last
of its requests has ended. What a step reads of it is in `step`.
"""

import itertools
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora.pages import PAGE, PageAllocator, pages_for
from kaito_runtime.lora.records import AdaptedLayer, AdapterVersion, AdapterWeights, ResidentAdapter, ScalingTable

__all__ = ["Bank"]

_Moved = Mapping[str, tuple[Tensor, Tensor]]
"""A and B of an adapter that was moved out of its pages, by layer, in main memory and in the pools' dtype."""


@dataclass(slots=True)
class _Residency:
    pages: tuple[int, ...]  # empty while it is in main memory
    rank: int  # the largest of all layers
    scaling: Mapping[str, float]  # by layer
    kept: AdapterWeights | _Moved | None  # None while it is in pages
    references: int = 0
    pins: int = 0
    used: int = 0
    retired: bool = False


class Bank:
    """The loaded adapters of one model. Methods may be called from any thread.

    Attributes:
        generation: Grows whenever a version comes, goes or moves: what was read of the bank is valid while it is the
            same.
        max_rank: Adapters of a larger rank are refused; None: those that the pools cannot hold.
    """

    def __init__(self, layers: Mapping[str, AdaptedLayer], *, max_pages: int, max_rank: int | None = None) -> None:
        self._layers = layers
        self._allocator = PageAllocator(max_pages)
        self._resident: dict[AdapterVersion, _Residency] = {}
        self._clock = itertools.count(1)
        self.generation = 0
        self.max_rank = max_rank
        self._lock = threading.RLock()

    def resize(self, max_pages: int) -> None:
        """Sets the number of pages, before anything is loaded.

        Raises:
            ValueError: Adapters are loaded already.
        """
        if self._resident:
            raise ValueError("adapters are loaded already")
        self._allocator = PageAllocator(max_pages)

    def load(self, weights: AdapterWeights) -> AdapterVersion:
        """Copies an adapter into free pages, or keeps it in main memory; no other adapter is touched.

        Raises:
            AdapterLoadError: It targets a layer that is not adapted here, or the pools could never hold it.
        """
        for path, matrix in weights.matrices.items():
            layer = self._layers.get(path)
            if layer is None:
                raise AdapterLoadError(
                    weights.name,
                    f"'{path}' is not among the {len(self._layers)} adapted layers: the model's recipe leaves it out, "
                    "or several processes share the model, where embedding, output head and experts cannot be adapted",
                )
            if (matrix.a.shape[1], matrix.b.shape[0]) != layer.adapter_shape:
                raise AdapterLoadError(
                    weights.name,
                    f"'{path}' is a [{layer.adapter_shape[1]}, {layer.adapter_shape[0]}] layer, "
                    f"the adapter is for [{matrix.b.shape[0]}, {matrix.a.shape[1]}]",
                )
        rank = max((matrix.a.shape[0] for matrix in weights.matrices.values()), default=1)
        if self.max_rank is not None and rank > self.max_rank:
            raise AdapterLoadError(
                weights.name, f"rank {rank} is above the largest that is allowed, {self.max_rank} (--max-adapter-rank)"
            )
        with self._lock, torch.inference_mode(False), torch.no_grad():
            if pages_for(rank) > self.limit:
                raise AdapterLoadError(
                    weights.name,
                    f"rank {rank} needs {pages_for(rank)} pages of {PAGE} ranks, there are {self.limit}: set "
                    "--adapter-memory higher",
                )
            scaling = {path: matrix.scaling for path, matrix in weights.matrices.items()}
            residency = _Residency((), rank, scaling, weights, used=next(self._clock))
            if pages_for(rank) <= self._allocator.free:
                self._move_in(residency)
            version = AdapterVersion(weights.name, weights.digest)
            self._resident[version] = residency
            self._refresh_scalings()
        return version

    def acquire(self, version: AdapterVersion) -> None:
        """Holds `version` for one request. A retired version can still be acquired while another request holds it.

        Raises:
            KeyError: It is not resident.
        """
        with self._lock:
            self._residency(version).references += 1

    def release(self, version: AdapterVersion) -> None:
        """Ends one `acquire`.

        Raises:
            KeyError: It is not resident.
            ValueError: It was released more often than acquired.
        """
        with self._lock:
            residency = self._residency(version)
            if residency.references == 0:
                raise ValueError(f"adapter '{version.name}' was released more often than acquired")
            residency.references -= 1
            self._free_if_unused(version)

    def pin(self, versions: Collection[AdapterVersion]) -> bool:
        """Brings the adapters of one request into pages, where they stay until `unpin`.

        Returns:
            False, and nothing has changed, if other requests have pinned too many pages: try again when one has ended.

        Raises:
            KeyError: One is not resident.
        """
        with self._lock, torch.inference_mode(False), torch.no_grad():
            wanted = [self._residency(version) for version in versions]
            missing = sum(pages_for(residency.rank) for residency in wanted if not residency.pages)
            idle = [r for v, r in self._resident.items() if r.pages and not r.pins and v not in versions]
            if missing > self._allocator.free + sum(len(residency.pages) for residency in idle):
                return False
            for residency in sorted(idle, key=lambda residency: residency.used):
                if missing <= self._allocator.free:
                    break
                self._move_out(residency)
            for residency in wanted:
                if not residency.pages:
                    self._move_in(residency)
                residency.pins += 1
                residency.used = next(self._clock)
        return True

    def unpin(self, versions: Collection[AdapterVersion]) -> None:
        """Ends one `pin`.

        Raises:
            KeyError: One is not resident.
        """
        with self._lock:
            for version in versions:
                self._residency(version).pins -= 1

    def retire(self, version: AdapterVersion) -> None:
        """Unloads `version` as soon as no request holds it, which may be at once.

        Raises:
            KeyError: It is not resident.
        """
        with self._lock:
            self._residency(version).retired = True
            self._free_if_unused(version)

    def resident(self) -> list[ResidentAdapter]:
        """Lists the loaded versions, oldest first."""
        with self._lock:
            return [
                ResidentAdapter(version, r.references, self._nbytes(r), r.retired)
                for version, r in self._resident.items()
            ]

    def pages(self, version: AdapterVersion) -> tuple[int, ...]:
        """Returns the pages of `version`, in ascending order; none while it is in main memory.

        Raises:
            KeyError: It is not resident.
        """
        return self._residency(version).pages

    def rank(self, version: AdapterVersion) -> int:
        """Returns the largest rank that `version` has in any layer.

        Raises:
            KeyError: It is not resident.
        """
        return self._residency(version).rank

    @property
    def limit(self) -> int:
        """The number of pages."""
        return self._allocator.limit

    @property
    def free_pages(self) -> int:
        """The number of pages that no adapter owns."""
        return self._allocator.free

    def _nbytes(self, residency: _Residency) -> int:
        return len(residency.pages) * sum(self._layers[path].page_bytes for path in residency.scaling)

    def _move_in(self, residency: _Residency) -> None:
        pages = self._allocator.take(pages_for(residency.rank))
        assert pages is not None and residency.kept is not None
        try:
            if isinstance(residency.kept, AdapterWeights):
                for path, matrix in residency.kept.matrices.items():
                    self._layers[path].write(pages, matrix.a, matrix.b)
            else:
                for path, (a, b) in residency.kept.items():
                    self._layers[path].pool.write(pages, a, b)
        except Exception:
            self._allocator.give_back(pages)
            raise
        residency.pages, residency.kept = pages, None
        self.generation += 1

    def _move_out(self, residency: _Residency) -> None:
        pages = residency.pages
        residency.kept = {path: self._layers[path].pool.read(pages, residency.rank) for path in residency.scaling}
        residency.pages = ()
        self._allocator.give_back(pages)
        self.generation += 1

    def _residency(self, version: AdapterVersion) -> _Residency:
        try:
            return self._resident[version]
        except KeyError:
            known = ", ".join(sorted(v.name for v in self._resident)) or "none"
            raise KeyError(f"adapter '{version.name}' ({version.digest}) is not resident; resident: {known}") from None

    def _free_if_unused(self, version: AdapterVersion) -> None:
        residency = self._resident[version]
        if residency.retired and residency.references == 0:
            del self._resident[version]
            self._allocator.give_back(residency.pages)
            self._refresh_scalings()

    def _refresh_scalings(self) -> None:
        """Gives layers with the same scalings the same table."""
        tables: dict[tuple[tuple[AdapterVersion, float], ...], ScalingTable] = {}
        for path, layer in self._layers.items():
            key = tuple((v, r.scaling[path]) for v, r in self._resident.items() if path in r.scaling)
            if key not in tables:
                tables[key] = ScalingTable(dict(key))
            layer.scalings = tables[key]
        self.generation += 1
