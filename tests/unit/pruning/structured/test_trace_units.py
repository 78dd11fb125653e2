"""Arithmetic of unit numbers, against the slow way."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

from workers.pruning.structured.labels import compressed, in_parts, reshaped, varying
from workers.pruning.structured.units import Units, merged

IDS = st.integers(0, 19)


@given(pairs=st.lists(st.tuples(IDS, IDS), max_size=30))
def test_merging_agrees_with_following_pairs_one_by_one(pairs):
    want = list(range(20))
    for one, other in pairs:
        low, high = sorted((want[one], want[other]))
        want = [low if each == high else each for each in want]
    sides = [(np.array([one]), np.array([other])) for one, other in pairs]

    found = merged(np.arange(20), sides)

    assert found.tolist() == want


@given(shapes=mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4), data=st.data())
def test_broadcast_pairs_are_united_position_by_position(shapes, data):
    one, other = (data.draw(arrays(np.int64, shape, elements=IDS)) for shape in shapes.input_shapes)

    found = merged(np.arange(20), [(one, other)])

    assert (found[one] == found[other]).all()


@st.composite
def views(draw):
    """A shape, another with as many elements, and numbers that vary along some axes of the first."""
    factors = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5))

    def grouped():
        shape = [1]
        for factor in factors:
            if draw(st.booleans()):
                shape.append(1)
            shape[-1] *= factor
        return tuple(shape)

    old, new = grouped(), grouped()
    sizes = [size if draw(st.booleans()) else 1 for size in old]
    return old, new, np.arange(prod(sizes), dtype=np.int64).reshape(sizes)


@given(view=views())
def test_a_view_of_numbers_is_the_view_of_all_of_them_written_out(view):
    old, new, ids = view

    found = reshaped(ids, old, new)

    assert found.ndim == len(new)
    assert (np.broadcast_to(found, new) == np.broadcast_to(ids, old).reshape(new)).all()


@given(ids=arrays(np.int64, st.tuples(*[st.integers(1, 4)] * 3), elements=st.integers(0, 1)))
def test_compression_drops_exactly_the_constant_axes(ids):
    small = compressed(ids)

    assert (np.broadcast_to(small, ids.shape) == ids).all()
    assert all((small != small.take([0], axis)).any() for axis in varying(small))


def test_parts_keep_the_order():
    assert in_parts(np.arange(6).reshape(1, 6), 1, 2).tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_a_product_of_two_free_axes_gives_up_the_leading_one():
    units = Units(7)
    units.factors(np.arange(1, 7).reshape(2, 3))

    assert units.resolve().parent.tolist() == [0, 1, 2, 3, 1, 2, 3]


def test_heads_are_kept_when_the_inner_axis_is_one_unit():
    units = Units(7)
    units.factors(np.arange(1, 7).reshape(2, 3))
    units.unite_along(np.arange(1, 7).reshape(2, 3), 1)

    assert units.resolve().parent.tolist() == [0, 1, 1, 1, 4, 4, 4]


def test_shared_numbers_are_tied_only_where_the_heads_are_not_units():
    tied, free = Units(9), Units(9)
    heads, scale = np.arange(1, 7).reshape(2, 3), np.array([[7, 8, 8]])
    for units in (tied, free):
        units.factors(heads)
        units.shared(heads, scale)
    free.unite_along(heads, 1)

    assert tied.resolve().parent.tolist() == [0, 1, 2, 2, 1, 2, 2, 1, 2]
    assert free.resolve().parent.tolist() == [0, 1, 1, 1, 4, 4, 4, 7, 8]
    assert free.resolve().reasons[7] == "every head uses the same numbers"


def test_a_frozen_number_freezes_its_whole_unit_and_the_first_reason_is_kept():
    units = Units(4, where="add in block")
    units.unite(np.array([1]), np.array([2]))
    units.freeze(np.array([2]), "first")
    units.freeze(np.array([1]), "second")

    assert units.resolve().reasons == {
        0: "joined with positions that no layer makes",
        1: "first (add in block)",
    }


@pytest.mark.parametrize("count", [1000])
def test_a_long_chain_is_one_unit(count):
    ids = np.arange(count)

    assert (merged(ids, [(ids[:-1], ids[1:])]) == 0).all()
