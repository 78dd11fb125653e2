"""Convolutional hazards: what a trace ties together, exactly."""

import pytest
import torch
from torch import Tensor, nn

from tests.unit.pruning.structured.traced import by_name, one, places, traced, without_first_units


class Forward(nn.Module):
    """Layers `a`, `b`, `c`, … and a forward given as a function of them."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.body = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def conv(inputs: int, outputs: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def head(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 3))


def test_a_channel_takes_its_norm_and_its_readers_along():
    module = nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 6), head(6))

    graph = traced(module, 1, 8, 8)

    every = [0, 1, 2, 3]
    assert by_name(graph) == {"0": ("channels", 4), "3": ("channels", 6)}
    assert places(one(graph, "0")) == {
        ("0.weight", 0): every,
        ("0.bias", 0): every,
        ("1.weight", 0): every,
        ("1.bias", 0): every,
        ("1.running_mean", 0): every,
        ("1.running_var", 0): every,
        ("3.weight", 1): every,
    }
    roles = {axis.tensor: axis.role for axis in one(graph, "0").axes}
    assert roles["0.weight"] == "out"
    assert roles["1.running_var"] == "norm"
    assert roles["3.weight"] == "in"
    assert graph.frozen == {"4.2": "the model's output"}


def test_the_input_channels_of_the_first_layer_stay():
    graph = traced(nn.Sequential(conv(3, 4), head(4)), 3, 8, 8)

    assert ("0.weight", 1) not in places(one(graph, "0"))


def test_a_residual_add_makes_both_branches_one_width():
    module = Forward(lambda m, x: m.c(m.b(m.a(x)) + m.a(x)), a=conv(1, 4), b=conv(4, 4), c=head(4))

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 4)}
    assert {("a.weight", 0), ("b.weight", 0), ("b.weight", 1), ("c.2.weight", 1)} <= set(
        places(one(graph, "a"))
    )


def test_a_concatenation_keeps_its_parts_apart():
    module = Forward(
        lambda m, x: m.d(m.c(torch.cat([m.a(x), m.b(x)], 1))),
        a=conv(1, 2),
        b=conv(1, 3),
        c=conv(5, 4),
        d=head(4),
    )

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 2), "b": ("channels", 3), "c": ("channels", 4)}
    assert places(one(graph, "a"))["c.weight", 1] == [0, 1, -1, -1, -1]
    assert places(one(graph, "b"))["c.weight", 1] == [-1, -1, 0, 1, 2]


def test_a_concatenation_added_to_one_layer_splits_that_layer_between_the_groups():
    module = Forward(
        lambda m, x: m.d(torch.cat([m.a(x), m.b(x)], 1) + m.c(x)),
        a=conv(1, 2),
        b=conv(1, 3),
        c=conv(1, 5),
        d=head(5),
    )

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 2), "b": ("channels", 3)}
    assert places(one(graph, "a"))["c.weight", 0] == [0, 1, -1, -1, -1]
    assert places(one(graph, "b"))["c.weight", 0] == [-1, -1, 0, 1, 2]


def test_chunks_go_position_by_position():
    def forward(m, x):
        left, right = m.a(x).chunk(2, 1)
        return m.b(left * torch.sigmoid(right))

    graph = traced(Forward(forward, a=conv(1, 6), b=head(3)), 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 3)}
    assert places(one(graph, "a"))["a.weight", 0] == [0, 1, 2, 0, 1, 2]
    assert one(graph, "a").widths.tolist() == [2, 2, 2]


def test_unequal_parts_keep_their_sizes():
    def forward(m, x):
        left, right = m.a(x).split([2, 4], 1)
        return m.b(left), m.c(right)

    graph = traced(Forward(forward, a=conv(1, 6), b=head(2), c=head(4)), 1, 8, 8)

    assert graph.groups == ()
    assert "unequal parts (split_with_sizes" in graph.frozen["a"]


def test_a_channel_shuffle_ties_what_it_mixes():
    def forward(m, x):
        y = m.a(x)
        y = y.view(2, 2, 3, 8, 8).transpose(1, 2).reshape(2, 6, 8, 8)
        return m.c(m.b(y))

    graph = traced(Forward(forward, a=conv(1, 6), b=conv(6, 4), c=head(4)), 1, 8, 8)

    assert places(one(graph, "a"))["a.weight", 0] == [0, 1, 2, 0, 1, 2]
    assert places(one(graph, "a"))["b.weight", 1] == [0, 0, 1, 1, 2, 2]


def test_a_depthwise_filter_goes_with_its_channel():
    module = nn.Sequential(conv(1, 4), conv(4, 4, groups=4), conv(4, 2), head(2))

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"0": ("channels", 4), "2": ("channels", 2)}
    assert places(one(graph, "0"))["1.weight", 0] == [0, 1, 2, 3]
    assert ("1.weight", 1) not in places(one(graph, "0"))


def test_a_depthwise_multiplier_ties_several_filters_to_a_channel():
    graph = traced(nn.Sequential(conv(1, 3), conv(3, 6, groups=3), head(6)), 1, 8, 8)

    assert places(one(graph, "0"))["1.weight", 0] == [0, 0, 1, 1, 2, 2]


def test_every_group_of_a_grouped_convolution_loses_the_same_count():
    graph = traced(nn.Sequential(conv(1, 6), conv(6, 4, groups=2), head(4)), 1, 8, 8)

    assert places(one(graph, "0"))["0.weight", 0] == [0, 1, 2, 0, 1, 2]
    assert places(one(graph, "0"))["1.weight", 1] == [0, 1, 2]
    assert places(one(graph, "1"))["1.weight", 0] == [0, 1, 0, 1]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_its_axes_the_other_way(groups):
    up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=groups)

    graph = traced(nn.Sequential(conv(1, 4), up, head(6)), 1, 8, 8)

    read = [0, 1, 2, 3] if groups == 1 else [0, 1, 0, 1]
    made = list(range(6 // groups))
    assert places(one(graph, "0"))["1.weight", 0] == read
    assert places(one(graph, "1"))["1.weight", 1] == made
    assert places(one(graph, "1"))["1.bias", 0] == made * groups


def test_group_norm_keeps_its_groups_even():
    graph = traced(nn.Sequential(conv(1, 6), nn.GroupNorm(2, 6), head(6)), 1, 8, 8)

    assert places(one(graph, "0"))["0.weight", 0] == [0, 1, 2, 0, 1, 2]
    assert places(one(graph, "0"))["1.weight", 0] == [0, 1, 2, 0, 1, 2]


def test_flattening_gives_a_channel_all_its_pixels():
    graph = traced(nn.Sequential(conv(1, 3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2)), 1, 2, 2)

    assert by_name(graph) == {"0": ("channels", 3), "2": ("neurons", 5)}
    assert places(one(graph, "0"))["2.weight", 1] == [0] * 4 + [1] * 4 + [2] * 4


def test_pixel_shuffle_takes_all_filters_of_a_channel():
    graph = traced(nn.Sequential(conv(1, 8), nn.PixelShuffle(2), conv(2, 3), head(3)), 1, 4, 4)

    assert places(one(graph, "0"))["0.weight", 0] == [0] * 4 + [1] * 4


def test_weights_standardised_before_use_are_still_the_layers_own():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            flat = self.weight.reshape(1, self.weight.shape[0], -1)
            weight = nn.functional.batch_norm(flat, None, None, training=True).reshape_as(self.weight)
            return nn.functional.conv2d(x, weight, self.bias, padding=1)

    graph = traced(nn.Sequential(Standardised(1, 4, 3), Standardised(4, 6, 3), head(6)), 1, 8, 8)

    assert by_name(graph) == {"0": ("channels", 4), "1": ("channels", 6)}
    assert places(one(graph, "0"))["1.weight", 1] == [0, 1, 2, 3]


def test_weight_norm_scales_go_with_their_filters():
    module = nn.Sequential(nn.utils.parametrizations.weight_norm(conv(1, 4)), conv(4, 2), head(2))

    graph = traced(module, 1, 8, 8)

    found = places(one(graph, "0"))
    assert found["0.parametrizations.weight.original0", 0] == [0, 1, 2, 3]
    assert found["0.parametrizations.weight.original1", 0] == [0, 1, 2, 3]


def test_padding_with_new_channels_freezes_what_they_are_added_to():
    def forward(m, x):
        y = m.a(x)
        return m.c(m.b(y) + nn.functional.pad(y, (0, 0, 0, 0, 0, 2)))

    graph = traced(Forward(forward, a=conv(1, 2), b=conv(2, 4), c=head(4)), 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 2)}
    assert places(one(graph, "a"))["b.weight", 0] == [0, 1, -1, -1]
    assert "no layer makes" in graph.frozen["b"]


def test_an_operator_without_a_rule_freezes_what_goes_in_and_out():
    module = Forward(lambda m, x: m.b(torch.fft.fft(m.a(x), dim=1).real), a=conv(1, 4), b=conv(4, 2))

    graph = traced(module, 1, 8, 8)

    assert graph.groups == ()
    assert graph.frozen["a"].startswith("no rule follows this operator (_fft")


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: y.softmax(1),
        lambda y: y.cumsum(1),
        lambda y: y.sort(1).values,
        lambda y: y.topk(4, 1).values,
        lambda y: y[:, torch.tensor([3, 2, 1, 0])],
        lambda y: y.roll(1, 1),
        lambda y: y + torch.arange(4.0).view(1, 4, 1, 1),
        lambda y: y * y.argmax(1, keepdim=True),
    ],
)
def test_what_means_something_only_as_a_whole_keeps_its_size(operator):
    module = Forward(lambda m, x: m.b(operator(m.a(x))), a=conv(1, 4), b=conv(4, 2))

    graph = traced(module, 1, 8, 8)

    assert graph.groups == ()
    assert "a" in graph.frozen


@pytest.mark.parametrize(
    "operator",
    [
        lambda y: y.softmax(2),
        lambda y: y.roll(1, 2),
        lambda y: y.flip(3),
        lambda y: y[:, :, ::2],
        lambda y: y[:, :, torch.tensor([0, 2])],
        lambda y: nn.functional.interpolate(y, scale_factor=2, mode="bilinear"),
        lambda y: nn.functional.max_pool2d(y, 2),
        lambda y: nn.functional.pad(y, (1, 1)),
        lambda y: y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda y: y * y.mean((2, 3), keepdim=True),
        lambda y: torch.where(y > 0, y, 0.1 * y),
        lambda y: torch.cat([y, y], 2),
        lambda y: torch.stack([y, y]).sum(0),
        lambda y: y.unflatten(2, (2, 4)).flatten(2, 3),
        lambda y: y * torch.ones_like(y),
        lambda y: y.amax(1, keepdim=True) * y,
        lambda y: nn.functional.unfold(y, 1).view(y.shape),
    ],
)
def test_operators_on_other_axes_pass_the_channels_on(operator):
    module = Forward(lambda m, x: m.c(m.b(operator(m.a(x)))), a=conv(1, 4), b=conv(4, 2), c=head(2))

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 4), "b": ("channels", 2)}
    assert places(one(graph, "a"))["b.weight", 1] == [0, 1, 2, 3]
    assert without_first_units(module, graph)(torch.randn(2, 1, 8, 8)).shape == (2, 3)


def test_a_prelu_slope_goes_with_its_channel():
    graph = traced(nn.Sequential(conv(1, 4), nn.PReLU(4), head(4)), 1, 8, 8)

    assert places(one(graph, "0"))["1.weight", 0] == [0, 1, 2, 3]


def test_a_buffer_goes_with_what_it_meets_stored_or_not():
    module = Forward(lambda m, x: m.b(m.a(x) * m.scale), a=conv(1, 4), b=head(4))
    module.register_buffer("scale", torch.ones(4, 1, 1), persistent=False)

    assert places(one(traced(module, 1, 8, 8), "a"))["scale", 0] == [0, 1, 2, 3]


def test_a_tensor_that_is_no_buffer_keeps_the_size_of_what_it_meets():
    module = Forward(lambda m, x: m.b(m.a(x) * m.scale), a=conv(1, 4), b=head(4))
    module.scale = torch.ones(4, 1, 1)

    assert traced(module, 1, 8, 8).groups == ()


def test_two_uses_of_a_layer_tie_both_places():
    module = Forward(lambda m, x: m.c(m.b(m.b(m.a(x)))), a=conv(1, 4), b=conv(4, 4), c=head(4))

    graph = traced(module, 1, 8, 8)

    assert by_name(graph) == {"a": ("channels", 4)}
    assert places(one(graph, "a"))["b.weight", 0] == places(one(graph, "a"))["b.weight", 1] == [0, 1, 2, 3]
