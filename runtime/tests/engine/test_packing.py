"""How a pass is laid out: what is read, and in how many copies it comes to the device."""

import numpy as np
import torch
from packed_spans import place
from torch import Tensor

from kaito_runtime.engine.packing import PackedPlan, Upload


def test_padding_at_most_doubles_the_keys_that_are_read() -> None:
    """Those of long sequences are read where they are, on a CPU."""
    lengths = [10 + i % 3 for i in range(100)] + [1000]
    placed, memory, _ = place([(1, length) for length in lengths], side_by_side=False)
    plan = PackedPlan(placed, memory, Upload(torch.device("cpu")), torch.float32).groups(None)
    assert sum(len(decode.cells) for decode in plan.decodes if isinstance(decode.cells, Tensor)) < 2 * sum(lengths)
    assert sum(decode.batch for decode in plan.decodes) == len(lengths)


def test_keys_beyond_the_window_are_not_read() -> None:
    placed, memory, cells = place([(1, 1000)], side_by_side=False)
    decode = PackedPlan(placed, memory, Upload(torch.device("cpu")), torch.float32).groups(5).decodes[0]
    assert isinstance(decode.cells, Tensor)
    assert decode.cells.tolist() == cells[-5:]


def test_long_sequences_on_a_cpu_are_computed_alone_wherever_they_are() -> None:
    for side_by_side in (True, False):
        placed, memory, _ = place([(1, 20), (1, 21), (1, 3000), (1, 3001)], side_by_side=side_by_side)
        key = torch.zeros(1, 2, 1, 8)
        memory.layer(0, key, key)
        groups = PackedPlan(placed, memory, Upload(torch.device("cpu")), torch.float32).groups(None)
        assert sorted(decode.batch for decode in groups.decodes) == [1, 1, 2]
        assert isinstance(groups.decodes[0].cells, slice) == side_by_side


def test_a_pass_is_copied_in_one_piece_to_one_place() -> None:
    upload = Upload(torch.device("cpu"))
    first = upload([np.arange(40)])[0].data_ptr()
    one, two = upload([np.arange(3), np.arange(6).reshape(2, 3) + 10])
    assert (one.tolist(), two.tolist()) == ([0, 1, 2], [10, 11, 12, 13, 14, 15])
    assert one.data_ptr() == first
    assert two.data_ptr() == first + 3 * 8


def test_windows_are_known_from_the_second_pass_on() -> None:
    """Then they are copied with the rest of the pass."""
    placed, memory, _ = place([(1, 9)], side_by_side=False)
    upload = Upload(torch.device("cpu"))
    PackedPlan(placed, memory, upload, torch.float32).groups(5)
    plan = PackedPlan(placed, memory, upload, torch.float32)
    first = plan.written.data_ptr()
    cells = plan.groups(5).decodes[0].cells
    assert isinstance(cells, Tensor)
    assert cells.data_ptr() == first + 8
