"""The state dict in what training scripts save, and each of its values once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workers.convert.state_dict import ENTRIES, elements, find_state_dict, untie
from workers.errors import ModelError

PLAIN = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}


def names(loaded: Any, **options: str) -> list[str]:
    return list(find_state_dict(loaded, **options).tensors)


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "module", "net", "model_ema"])
def test_finds_the_state_dict_where_scripts_put_it(entry: str):
    found = find_state_dict({"epoch": 3, entry: PLAIN, "best": torch.tensor(0.5), "args": {"lr": 1}})

    assert (list(found.tensors), found.under) == (list(PLAIN), entry)
    assert found.left_out == ("epoch (int)", "best (Tensor)", "args (dict of 1)")


def test_finds_it_two_levels_down():
    found = find_state_dict({"model": {"state_dict": PLAIN, "version": 1}})

    assert (list(found.tensors), found.under) == (list(PLAIN), "model.state_dict")
    assert found.left_out == ("version (int)",)


def test_takes_a_plain_one_and_leaves_out_what_is_no_tensor():
    found = find_state_dict({**PLAIN, "fc._extra_state": None, 7: torch.zeros(1)})

    assert list(found.tensors) == list(PLAIN)
    assert found.left_out == ("fc._extra_state (NoneType)", "7 (Tensor)")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_cuts_off_what_wrappers_put_before_every_name(prefix: str):
    found = find_state_dict({prefix + name: one for name, one in PLAIN.items()})

    assert (list(found.tensors), found.prefix) == (list(PLAIN), prefix)


def test_keeps_a_prefix_that_not_every_name_has():
    mixed = {"module.a": torch.zeros(1), "b": torch.zeros(1)}

    assert names(mixed) == ["module.a", "b"]


def test_cuts_off_the_prefix_that_the_user_names_and_leaves_out_the_rest():
    found = find_state_dict({"net.a": torch.zeros(1), "loss.b": torch.zeros(1)}, prefix="net.")

    assert (list(found.tensors), found.left_out) == (["a"], ("loss.b (no 'net.' before it)",))


def test_the_user_may_name_the_entry():
    both = {"model": PLAIN, "teacher": {"x": torch.zeros(1)}}

    assert names(both, entry="teacher") == ["x"]
    assert names(both) == list(PLAIN)


@pytest.mark.parametrize(
    ("loaded", "options", "message"),
    [
        (
            {"encoder": PLAIN, "decoder": PLAIN},
            {},
            "tensors lie under encoder, decoder: say which with --entry",
        ),
        ({"model": PLAIN}, {"entry": "modle"}, "no state dict under 'modle': tensors lie under model"),
        ([1, 2], {}, "it holds a list: save model.state_dict"),
        (torch.zeros(2), {}, "it holds a Tensor"),
        ({"epoch": 1}, {}, r"it holds epoch \(int\)"),
        ({}, {}, "it holds nothing"),
        ({"\ud800": torch.zeros(1)}, {}, "cannot be written in UTF-8"),
        (PLAIN, {"prefix": "net."}, "give another --prefix"),
        ({"w": torch.zeros(2, dtype=torch.complex128)}, {}, r"cannot store w \(torch.complex128"),
        ({"w": torch.zeros(2).to_sparse()}, {}, "cannot store w .*sparse"),
        ({"w": torch.empty(2, device="meta")}, {}, "cannot store w"),
        ({"w": torch.zeros(1).expand(10**6, 10**6)}, {}, "w has more elements than the file has values for"),
    ],
)
def test_what_is_no_state_dict_is_refused_with_the_remedy(loaded: Any, options: dict[str, str], message: str):
    with pytest.raises(ModelError, match=message):
        find_state_dict(loaded, **options)


def test_a_dict_that_holds_itself_is_refused():
    loop: dict[str, Any] = {"epoch": 1}
    loop |= {name: loop for name in ENTRIES}

    with pytest.raises(ModelError, match="there is no state dict in the file"):
        find_state_dict(loop)


def test_a_tied_weight_is_stored_once_under_its_first_name():
    model = nn.ModuleDict({"emb": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["emb"].weight

    untied = untie(model.state_dict(), 60)

    assert list(untied.tensors) == ["emb.weight"]
    assert untied.dropped == {"head.weight": "emb.weight"}


def test_parts_of_one_storage_are_stored_apart():
    whole = torch.arange(6.0)

    untied = untie({"a": whole[:2], "b": whole[2:4], "c": whole[4:]}, 24)

    assert untied.dropped == {}
    assert [one.tolist() for one in untied.tensors.values()] == [[0, 1], [2, 3], [4, 5]]
    assert len({one.untyped_storage().data_ptr() for one in untied.tensors.values()}) == 3


def test_other_views_of_one_memory_are_other_tensors():
    square = torch.arange(4.0).view(2, 2)

    untied = untie({"w": square, "t": square.T}, 1000)

    assert untied.tensors["t"].tolist() == [[0, 2], [1, 3]]
    assert untied.tensors["t"].is_contiguous()


def test_empty_tensors_are_not_tied():
    assert list(untie({"a": torch.zeros(0), "b": torch.zeros(0)}, 0).tensors) == ["a", "b"]


def test_views_that_overlap_to_more_than_the_file_are_refused():
    memory = torch.zeros(1000)
    views: dict[str, Tensor] = {f"v{start}": memory[start : start + 900] for start in range(50)}

    with pytest.raises(ModelError, match="they overlap"):
        untie(views, 5000)


def test_counts_elements_by_type():
    counted = elements({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.bfloat16)})

    assert dict(counted) == {"F32": 3, "BF16": 2}
