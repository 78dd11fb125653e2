"""Which axes of the inputs are free in an exported file."""

import torch

from workers.models.axes import free_axes, with_two

IDS = torch.zeros(2, 5, dtype=torch.int64)


def test_tokens_are_free_and_what_is_beside_them_is_as_long():
    axes = free_axes({"input_ids": IDS, "attention_mask": IDS, "token_type_ids": IDS})

    assert list(axes) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(one == {0: "batch", 1: "sequence"} for one in axes.values())


def test_a_target_has_a_length_of_its_own():
    axes = free_axes({"input_ids": IDS, "attention_mask": IDS, "decoder_input_ids": IDS[:, :3]})

    assert axes["decoder_input_ids"] == {0: "batch", 1: "target_sequence"}


def test_images_and_spectrograms_keep_their_size():
    features = torch.zeros(2, 32, 8)

    assert free_axes({"pixel_values": torch.zeros(2, 3, 8, 8)}) == {"pixel_values": {0: "batch"}}
    assert free_axes({"input_features": features, "attention_mask": torch.zeros(2, 32)}) == {
        "input_features": {0: "batch"},
        "attention_mask": {0: "batch"},
    }
    assert free_axes({"input_values": features}) == {"input_values": {0: "batch"}}


def test_raw_sound_is_free_in_its_length():
    axes = free_axes({"input_values": torch.zeros(2, 400), "attention_mask": torch.zeros(2, 400)})

    assert axes["input_values"] == axes["attention_mask"] == {0: "batch", 1: "sequence"}


def test_an_example_of_one_sample_is_doubled():
    one, two = with_two([IDS[:1], IDS])

    assert one.shape == two.shape
