"""Cuts to N of M, at once and round after round."""

import pytest
import torch
from torch import Tensor, nn

from schemas.method import SemiStructured
from tests.unit.pruning.cuts import chosen, cut_module, cut_to, grew, masks, nudged, zeros
from workers.errors import PreflightError
from workers.pruning.layers import prunable_layers
from workers.pruning.nm import holds

KINDS = ("magnitude", "random", "taylor", "snip", "fisher", "wanda")


def network(seed: int = 0) -> nn.Sequential:
    """Layers whose inputs divide by 8: 2,760 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 12),
    )


def cut_pattern(module: nn.Module, share: float, kind: str, *, n: int = 2, m: int = 4, number: int = 1):
    return cut_module(module, share, n=n, m=m, criterion={"kind": kind}, exclude=["0"], number=number)


def parts(module: nn.Module) -> list[Tensor]:
    return [layer.weight.detach() for layer in prunable_layers(module)[1:]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8)])
def test_the_whole_share_makes_the_pattern(kind: str, n: int, m: int):
    module = network()

    result = cut_pattern(module, 1 - n / m, kind, n=n, m=m)

    weight, last = parts(module)
    assert holds(weight, n, m, kind="Conv2d")
    assert holds(last, n, m, kind="Linear")
    assert result.zeros == sum(zeros(module)) == (2304 + 384) * (m - n) // m


@pytest.mark.parametrize("kind", ["magnitude", "sparsegpt"])
def test_a_share_with_six_digits_makes_the_whole_pattern(kind: str):
    module = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.Flatten(), nn.Linear(432, 3))

    result = cut_pattern(module, 0.666666, kind, n=1, m=3)

    assert all(holds(weight, 1, 3, kind="Linear") for weight in parts(module))
    assert result.zeros == 864


@pytest.mark.parametrize("kind", KINDS)
def test_masks_grow_to_the_exact_pattern_over_rounds(kind: str):
    module = network()

    for number, share in enumerate((0.13, 0.3, 0.42, 0.5), start=1):
        before = masks(module)
        result = cut_pattern(module, share, kind, number=number)

        assert grew(before, masks(module))
        assert result.zeros == sum(zeros(module)) == round(share * 2688)
        nudged(module, seed=number)

    assert holds(parts(module)[0], 2, 4, kind="Conv2d")
    assert holds(parts(module)[1], 2, 4, kind="Linear")


def test_a_smaller_share_zeroes_the_smallest_of_what_the_pattern_would_zero():
    module = nn.Linear(8, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2, 3, 4, 8, 7, 6, 5]]))
    method = SemiStructured()

    cut_to(chosen(module), 3 / 8, method)
    partly = module.weight.tolist()
    cut_to(chosen(module), 1 / 2, method)

    assert partly == [[0, 0, 3, 4, 8, 7, 6, 0]]
    assert module.weight.tolist() == [[0, 0, 3, 4, 8, 7, 0, 0]]


def test_wanda_makes_the_pattern_of_its_own_scores():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(36, 3)
            self.register_buffer("scale", torch.tensor([100.0, 10, 1, 0.1] * 9))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.scale * x.flatten(1).sign())

    module = Scaled()
    with torch.no_grad():
        module.head.weight.copy_(torch.tensor([1.0, 2, 3, 4]).repeat(3, 9))

    cut_module(module, 0.5, n=2, m=4, criterion={"kind": "wanda"})

    assert module.head.weight.unique(dim=0).tolist() == [[1, 2, 0, 0] * 9]


def test_the_same_pattern_again_changes_nothing():
    module = network()
    cut_pattern(module, 0.5, "magnitude")
    before = [weight.clone() for weight in parts(module)]

    cut_pattern(module, 0.5, "magnitude", number=2)

    assert all(map(torch.equal, before, parts(module)))


def test_a_smaller_share_than_is_zero_already_changes_no_pattern():
    module = network()
    cut_pattern(module, 0.5, "magnitude")

    result = cut_pattern(module, 0.2, "magnitude", number=2)

    assert result.zeros == sum(zeros(module)) == 1344


def test_sparsegpt_makes_its_pattern_at_once_or_not():
    with pytest.raises(PreflightError, match="at once: use schedule 'one_shot'"):
        cut_pattern(network(), 0.3, "sparsegpt")
