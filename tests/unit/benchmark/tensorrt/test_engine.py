"""What the builder is asked for, by version, and what is told when it fails."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.benchmark.tensorrt.fake import Told, fake_trt
from workers.benchmark.tensorrt.engine import BuildFailed, BuiltEngine, build_engine

SHAPES = {"x": (32, 3)}


def built(told: Told, *, sparse: bool = True, cache: bytes = b"", shapes: dict = SHAPES) -> BuiltEngine:
    return build_engine(fake_trt(told), Path("m.onnx"), shapes=shapes, sparse=sparse, timing_cache=cache)


@pytest.mark.parametrize(
    ("version", "flags"), [("10.3.0", 2), ("10.16.1.11", 2), ("11.0.0.114", 0), ("11.4", 0)]
)
def test_networks_are_strongly_typed_in_every_version(version: str, flags: int):
    told = Told(version=version)

    built(told)

    assert ("network", flags) in told.calls


def test_sparse_tactics_are_allowed_where_they_are_asked_for_only():
    assert "SPARSE_WEIGHTS" in built(Told(), sparse=True).flags
    assert "SPARSE_WEIGHTS" not in built(Told(), sparse=False).flags


def test_all_arms_compute_in_the_precision_of_the_file():
    assert "TF32" not in built(Told()).flags


def test_the_profile_is_the_shape_that_is_measured():
    told = Told()

    built(told)

    assert ("profile", ("x", (32, 3), (32, 3), (32, 3))) in told.calls


def test_a_fixed_shape_needs_no_profile():
    told = Told(input_shape=(32, 3))

    built(told, shapes={})

    assert not [call for call in told.calls if call[0] == "profile"]


def test_a_free_shape_without_a_profile_is_named():
    with pytest.raises(BuildFailed, match="the input 'x' has a free shape"):
        built(Told(), shapes={})


def test_the_inspector_will_say_which_kernels_there_are():
    told = Told()

    built(told)

    assert ("profiling_verbosity", "detailed") in told.calls
    assert ("hardware_compatibility_level", "none") in told.calls


def test_the_timing_cache_goes_in_and_comes_out():
    assert built(Told(), cache=b"old").timing_cache == b"old+new"


def test_the_log_keeps_verbose_lines_of_sparsity_and_no_others():
    log = (
        (4, "(Sparsity) Found 2 layer(s) eligible to use sparse tactics: a, b"),
        (4, "Tactic 0x1 took 3 ms"),
        (4, "(Sparsity) Chose 1 layer(s) using sparse tactics: b"),
        (3, "Engine generation completed"),
    )

    found = built(Told(log=log))

    assert found.sparsity.picked is not None
    assert found.sparsity.picked.names == ("b",)
    assert len(found.log) == 3


def test_a_node_that_the_parser_does_not_take_is_named():
    error = SimpleNamespace(
        node_name=lambda: "/head/Unique", node_operator=lambda: "Unique", desc=lambda: "no importer"
    )

    with pytest.raises(BuildFailed, match=r"m\.onnx: node '/head/Unique' \(Unique\): no importer"):
        built(Told(parse_errors=(error,)))


def test_an_old_parser_that_names_no_node_still_says_why():
    with pytest.raises(BuildFailed, match="takes no doubles"):
        built(Told(parse_errors=(SimpleNamespace(desc=lambda: "takes no doubles"),)))


def test_no_engine_is_told_with_the_builders_last_words():
    told = Told(plan=None, log=((1, "Could not find any implementation for node conv1."),))

    with pytest.raises(BuildFailed, match="Could not find any implementation for node conv1"):
        built(told)
