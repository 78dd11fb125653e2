"""Which groups may lose units, and which units go for a share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.allocation import GlobalAllocation, UniformAllocation
from schemas.method import Structured
from tests.unit.pruning.structured import graphs
from workers.errors import PreflightError
from workers.pruning.structured.graph import DependencyGraph, Group
from workers.pruning.structured.plan import choose_groups, kept_width, layers_of, plan
from workers.pruning.structured.scores import Scores

UNIFORM = UniformAllocation(keep_first_and_last=False)


def method(**options: object) -> Structured:
    return Structured(**{"round_to": 1, "allocation": UNIFORM, **options})


def rising(groups: tuple[Group, ...] | list[Group]) -> Scores:
    """Unit 0 has the smallest score."""
    return {group.name: np.arange(1.0, group.size + 1) for group in groups}


def chosen_names(graph: DependencyGraph, **options: object) -> list[str]:
    return [group.name for group in choose_groups(graph, method(**options)).groups]


def test_kinds_that_are_not_asked_for_stay_with_a_reason():
    graph = graphs.bert().graph

    chosen = choose_groups(graph, method(units=("heads",)))

    assert [group.kind for group in chosen.groups] == ["heads", "heads"]
    assert chosen.reasons["bert.encoder.layer.0.intermediate.dense"] == (
        "its units are neurons, which method.units leaves out"
    )


def test_globs_match_any_layer_that_makes_the_units():
    graph = graphs.residual().graph

    assert layers_of(graph.groups[0]) == ["stem", "second"]
    assert chosen_names(graph, include=("second",)) == ["stem"]
    assert chosen_names(graph, exclude=("sec*",)) == ["first"]
    assert chosen_names(graph, include=("*",), exclude=("stem",)) == ["first"]


def test_each_layer_that_stays_has_a_reason():
    chosen = choose_groups(graphs.residual().graph, method(include=("first",)))

    assert chosen.reasons == {"head": "makes the output", "stem": "not matched by method.include"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": ("heads",)}, "asks for heads, and the model has channels of convolutions only"),
        ({"exclude": ("*",)}, "no units are left to remove .*excluded by"),
        ({"include": ("head",)}, "no units are left to remove"),
        ({"include": ("frist",)}, "method.include: 'frist' matches no layer"),
        ({"exclude": ("layer9.*",)}, "method.exclude: 'layer9.*' matches no layer"),
        ({"overrides": {"layer9.*": 0.5}}, "method.overrides: 'layer9.*' matches no layer"),
        ({"round_to": 32}, "no units are left .* cannot shrink in steps of 32"),
    ],
    ids=str,
)
def test_what_cannot_work_with_the_model_is_refused(options: dict[str, object], message: str):
    with pytest.raises(PreflightError, match=message):
        choose_groups(graphs.residual().graph, method(**options))


def test_a_model_without_units_is_refused_with_the_reasons():
    with pytest.raises(PreflightError, match=r"no units that can be removed .*head: makes the output"):
        choose_groups(graphs.graph(head="makes the output"), method())


def test_the_first_layer_stays_dense_where_uniform_allocation_says_so():
    graph = graphs.residual().graph

    assert chosen_names(graph, allocation=UniformAllocation()) == ["first"]
    assert chosen_names(graph, allocation=UNIFORM) == ["stem", "first"]
    assert chosen_names(graph, allocation=GlobalAllocation()) == ["stem", "first"]


def test_the_first_heads_of_a_transformer_are_no_first_layer():
    assert len(chosen_names(graphs.bert().graph, allocation=UniformAllocation())) == 4


def test_uniform_takes_the_same_share_of_each_group_rounded_down():
    groups = graphs.concatenated().graph.groups

    removal = plan(groups, rising(groups), method(), 0.5)

    assert {name: units.tolist() for name, units in removal.items()} == {"one": [0, 1], "two": [0, 1, 2]}


def test_shares_are_exact_where_binary_fractions_are_not():
    group = graphs.group("0", "channels", graphs.layer("0", 100))

    assert len(plan([group], rising([group]), method(), 0.29)["0"]) == 29


def test_the_smallest_scores_go_and_of_equal_ones_the_first():
    group = graphs.group("0", "channels", graphs.layer("0", 5))

    removal = plan([group], {"0": np.array([2.0, 1.0, 3.0, 1.0, 1.0])}, method(), 0.4)

    assert removal["0"].tolist() == [1, 3]


def test_global_ranks_all_groups_by_their_scores_over_their_mean():
    groups = [graphs.group(name, "channels", graphs.layer(name, 4)) for name in ("a", "b")]
    scores = {"a": np.array([10.0, 10, 10, 10]), "b": np.array([0.001, 0.001, 0.001, 0.997])}

    removal = plan(groups, scores, method(allocation=GlobalAllocation()), 0.375)

    assert {name: units.tolist() for name, units in removal.items()} == {"b": [0, 1, 2]}


def test_no_group_loses_more_than_the_cap():
    groups = [graphs.group(name, "channels", graphs.layer(name, 4)) for name in ("a", "b")]
    scores = {"a": np.array([10.0, 11, 12, 13]), "b": np.array([0.001, 0.001, 0.001, 0.997])}

    removal = plan(groups, scores, method(allocation=GlobalAllocation(cap=0.5)), 0.375)

    assert {name: units.tolist() for name, units in removal.items()} == {"a": [0], "b": [0, 1]}


def test_an_override_sets_the_share_of_its_layers():
    groups = graphs.residual().graph.groups
    options = method(overrides={"second": 0.25, "*": 0.75})

    removal = plan(groups, rising(groups), options, 0.5)

    assert {name: len(units) for name, units in removal.items()} == {"stem": 2, "first": 12}
    assert plan(groups, rising(groups), options, 0.5, progress=0.5)["first"].tolist() == list(range(6))


def test_later_rounds_count_from_the_dense_model():
    group = graphs.group("0", "channels", graphs.layer("0", 12))

    removal = plan([group], rising([group]), method(), 0.5, dense_sizes={"0": 16})

    assert len(removal["0"]) == 4
    assert plan([group], rising([group]), method(), 0.25, dense_sizes={"0": 16}) == {}


def test_widths_that_stay_are_rounded_up():
    groups = [
        graphs.group("wide", "channels", graphs.layer("wide", 64)),
        graphs.group("odd", "neurons", graphs.layer("odd", 12)),
    ]

    removal = plan(groups, rising(groups), method(round_to=8), 0.3)

    assert {group.name: group.size - len(removal.get(group.name, ())) for group in groups} == {
        "wide": 48,
        "odd": 12,
    }


def test_units_of_several_channels_make_widths_that_are_multiples():
    pairs = graphs.group("pairs", "channels", graphs.layer("pairs", 16, each=2), each=2)
    triples = graphs.group("triples", "channels", graphs.layer("triples", 16, each=3), each=3)

    assert kept_width(pairs, 5, 8) * 2 == 16
    assert kept_width(triples, 5, 8) * 3 == 24
    assert kept_width(pairs, 5, 1) == 5


def test_heads_go_one_by_one_whatever_the_rounding():
    heads = graphs.group("heads", "heads", graphs.layer("heads", 12, each=4), each=4)

    assert len(plan([heads], rising([heads]), method(round_to=64), 0.5)["heads"]) == 6


def test_scores_that_are_no_numbers_are_refused():
    group = graphs.group("0", "channels", graphs.layer("0", 4))

    with pytest.raises(ValueError, match="NaN"):
        plan([group], {"0": np.array([1.0, float("nan"), 2.0, 3.0])}, method(), 0.5)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[Group], Scores, Structured]:
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    kinds = draw(st.lists(st.sampled_from(["channels", "neurons", "heads"]), min_size=6, max_size=6))
    groups, scores = [], {}
    for number, size in enumerate(sizes):
        each = draw(st.integers(1, 4))
        name = f"layer{number}"
        groups.append(graphs.group(name, kinds[number], graphs.layer(name, size, each=each), each=each))
        values = st.sampled_from([0.0, 1e-30, 0.5, 1.0, 2.0, 1e30])
        scores[name] = np.array(draw(st.lists(values, min_size=size, max_size=size)))
    allocation = draw(st.sampled_from([UNIFORM, GlobalAllocation(), GlobalAllocation(cap=0.6)]))
    return groups, scores, method(allocation=allocation, round_to=draw(st.sampled_from([1, 2, 8, 12])))


@given(problems(), st.floats(0, 1), st.floats(0, 1))
def test_any_plan_leaves_whole_widths_and_a_larger_share_takes_the_same_units_and_more(problem, one, other):
    groups, scores, options = problem

    smaller, larger = (plan(groups, scores, options, share) for share in sorted((one, other)))

    for group in groups:
        few, many = (set(part.get(group.name, np.array([], int)).tolist()) for part in (smaller, larger))
        assert few <= many < set(range(group.size))
        kept = group.size - len(many)
        width = kept * int(group.widths[0])
        assert kept == group.size or group.kind == "heads" or width % options.round_to == 0
        if isinstance(options.allocation, GlobalAllocation):
            assert len(many) <= options.allocation.cap * group.size + 1e-9


@given(problems(), st.floats(0, 1))
def test_a_global_plan_without_rounding_takes_the_exact_share_while_the_cap_allows(problem, share):
    groups, scores, options = problem
    options = options.model_copy(update={"round_to": 1, "allocation": GlobalAllocation(cap=0.6)})

    removal = plan(groups, scores, options, share)

    total, possible = sum(group.size for group in groups), sum(int(0.6 * group.size) for group in groups)
    assert sum(len(units) for units in removal.values()) == min(int(share * total + 1e-9), possible)
