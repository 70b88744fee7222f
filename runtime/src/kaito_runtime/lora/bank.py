"""The resident adapters of one model: who owns which rank pages, and for how long.

A version is immutable. It is loaded into free pages and acquired by every request that uses it; its pages are free
again once it is retired and the last of those requests has ended. What a step reads of it is in `step`.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora.pages import PAGE, PageAllocator, pages_for
from kaito_runtime.lora.records import AdaptedLayer, AdapterVersion, AdapterWeights, ResidentAdapter, ScalingTable

__all__ = ["Bank"]


@dataclass(slots=True)
class _Residency:
    pages: tuple[int, ...]
    rank: int  # the largest of all layers
    scaling: Mapping[str, float]  # by layer
    nbytes: int
    references: int = 0
    retired: bool = False


class Bank:
    """The resident adapters of one model. Methods may be called from any thread.

    Attributes:
        generation: Grows whenever a version comes or goes: what was read of the bank is valid while it is the same.
    """

    def __init__(self, layers: Mapping[str, AdaptedLayer], *, max_pages: int) -> None:
        self._layers = layers
        self._allocator = PageAllocator(max_pages)
        self._resident: dict[AdapterVersion, _Residency] = {}
        self.generation = 0
        self._lock = threading.RLock()

    def load(self, weights: AdapterWeights) -> AdapterVersion:
        """Copies an adapter into free pages; no resident adapter is touched.

        Raises:
            AdapterLoadError: It targets a layer that is not adapted here, or there are not enough free pages.
        """
        for path, matrix in weights.matrices.items():
            layer = self._layers.get(path)
            if layer is None:
                raise AdapterLoadError(weights.name, f"'{path}' is not among the {len(self._layers)} adapted layers")
            if (matrix.a.shape[1], matrix.b.shape[0]) != layer.adapter_shape:
                raise AdapterLoadError(
                    weights.name,
                    f"'{path}' is a [{layer.adapter_shape[1]}, {layer.adapter_shape[0]}] layer, "
                    f"the adapter is for [{matrix.b.shape[0]}, {matrix.a.shape[1]}]",
                )
        rank = max((matrix.a.shape[0] for matrix in weights.matrices.values()), default=1)
        with self._lock, torch.inference_mode(False), torch.no_grad():
            pages = self._allocator.take(pages_for(rank))
            if pages is None:
                raise AdapterLoadError(
                    weights.name,
                    f"rank {rank} needs {pages_for(rank)} pages of {PAGE} ranks, {self._allocator.free} of "
                    f"{self._allocator.limit} are free; unload another adapter first",
                    transient=pages_for(rank) <= self._allocator.limit,
                )
            try:
                for path, matrix in weights.matrices.items():
                    self._layers[path].write(pages, matrix.a, matrix.b)
            except Exception:
                self._allocator.give_back(pages)
                raise
            version = AdapterVersion(weights.name, weights.digest)
            scaling = {path: matrix.scaling for path, matrix in weights.matrices.items()}
            nbytes = len(pages) * sum(self._layers[path].page_bytes for path in scaling)
            self._resident[version] = _Residency(pages, rank, scaling, nbytes)
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

    def retire(self, version: AdapterVersion) -> None:
        """Unloads `version` as soon as no request holds it, which may be at once.

        Raises:
            KeyError: It is not resident.
        """
        with self._lock:
            self._residency(version).retired = True
            self._free_if_unused(version)

    def resident(self) -> list[ResidentAdapter]:
        """Lists the resident versions, oldest first."""
        with self._lock:
            return [
                ResidentAdapter(version, r.references, r.nbytes, r.retired) for version, r in self._resident.items()
            ]

    def pages(self, version: AdapterVersion) -> tuple[int, ...]:
        """Returns the pages of `version`, in ascending order.

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
    def free_pages(self) -> int:
        """The number of pages that no adapter owns."""
        return self._allocator.free

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
