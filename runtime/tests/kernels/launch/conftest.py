"""A driver that launches nothing: Triton's whole Python path runs on CPU tensors, specialises and compiles as for an
H100, and every launch is recorded instead of done."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget


class Launch(NamedTuple):
    kernel: str
    grid: tuple[int, int, int]
    shared: int
    pdl: bool
    binary: str


@dataclass
class Recorder:
    """What happened, in order: launches, and names of torch operators."""

    events: list[Launch | str] = field(default_factory=list)

    @property
    def launches(self) -> list[Launch]:
        return [event for event in self.events if isinstance(event, Launch)]


class FakeDriver:
    def __init__(self, recorder: Recorder) -> None:
        self.utils = self
        outer = recorder

        class Launcher:
            def __init__(self, src: Any, metadata: Any) -> None:
                self.metadata = metadata

            def __call__(self, x: int, y: int, z: int, *_: object) -> None:
                m = self.metadata
                outer.events.append(Launch(m.name, (x, y, z), m.shared, m.launch_pdl, m.hash))

        self.launcher_cls = Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232448}

    def load_binary(self, name: str, binary: bytes, shared: int, device: int) -> tuple[object, object, int, int, int]:
        return object(), object(), 0, 0, 1024

    def unload_module(self, module: object) -> None: ...


class Operators(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.recorder.events.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    if torch.cuda.is_available():
        pytest.skip("a real driver is here; tests/kernels/test_gpu.py measures it")
    from kaito_runtime.kernels import expand_add, gemm_expand, paged, shrink

    kernels = (
        shrink.shrink_kernel,
        gemm_expand.gemm_expand_kernel,
        expand_add.expand_add_kernel,
    )
    monkeypatch.setattr(paged, "_triton_runs", lambda x: True)
    found = Recorder()
    config = triton.runtime.driver
    before = config._active
    config.set_active(FakeDriver(found))
    for kernel in kernels:  # a compiled kernel keeps the launcher of its driver
        kernel.device_caches.clear()
    with torch.no_grad(), Operators(found):
        yield found
    for kernel in kernels:
        kernel.device_caches.clear()
    config._active = before
