"""Parts of a split."""

import pytest
import torch

from workers.data.bundle import Split


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (2, 2), (9, 4)])
def test_the_first_samples_are_as_many_as_there_are(count: int, kept: int):
    split = Split({"pixel_values": torch.arange(4).view(4, 1)}, torch.arange(4))

    first = split.first(count)

    assert first.labels.tolist() == list(range(kept))
    assert first.inputs["pixel_values"].shape == (kept, 1)
