"""Archives that are damaged, or larger than they say: refused before memory is taken, as ModelError."""

import json
import struct
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.task import Task
from tests import programs
from tests.programs import Members, changed, edit
from workers.errors import ModelError
from workers.models.load import load_model
from workers.program import archive as archives
from workers.program.archive import read_archive

WEIGHTS = "data/weights/model_weights_config.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    return programs.save(programs.exported(programs.Cnn().eval(), programs.images()), path)


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(path.parent, Task.image_classification)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_refuses_compressed_members(good: Path, tmp_path: Path):
    path = changed(good, tmp_path / "model.pt2", lambda _: None, compression=zipfile.ZIP_DEFLATED)

    assert "is compressed, which torch does not do" in refusal(path)


def test_refuses_a_member_that_is_there_twice(good: Path, tmp_path: Path):
    path = changed(good, tmp_path / "model.pt2", lambda _: None)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/byteorder", b"little")

    assert "'byteorder' is in the archive twice" in refusal(path)


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "a//b", "a\\b", "./b"])
def test_refuses_names_that_leave_the_archive(good: Path, tmp_path: Path, name: str):
    path = changed(good, tmp_path / "model.pt2", lambda members: members.update({name: b""}))

    assert "has the name" in refusal(path)


def test_refuses_links(good: Path, tmp_path: Path):
    path = changed(good, tmp_path / "model.pt2", lambda _: None)
    link = zipfile.ZipInfo("model/data/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")

    assert "'data/link' is a link" in refusal(path)


def test_refuses_two_folders_at_the_root(good: Path, tmp_path: Path):
    path = changed(good, tmp_path / "model.pt2", lambda _: None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/models/model.json", "{}")

    assert "2 folders at its root" in refusal(path)


def test_refuses_members_that_overlap(good: Path, tmp_path: Path):
    """Entries that all point at one large member: sizes add up to more than the file."""
    path = changed(good, tmp_path / "model.pt2", lambda members: members.update({"data/a": b"0" * 100_000}))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"model/byteorder") - 46
    content[place + 20 : place + 28] = struct.pack("<II", 100_000_000, 100_000_000)
    path.write_bytes(bytes(content))

    assert "larger than the file" in refusal(path)


@pytest.mark.parametrize("cap", ["MAX_MEMBERS", "MAX_JSON_BYTES"])
def test_refuses_more_than_it_reads(good: Path, monkeypatch: pytest.MonkeyPatch, cap: str):
    monkeypatch.setattr(archives, cap, 10)

    assert "at most 10 are read" in refusal(good)


def weight(members: Members, **changes: Any) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["hidden.weight"]["tensor_meta"].update(changes)

    edit(members, change, WEIGHTS)


BIG = [{"as_int": 2**40}, {"as_int": 2**40}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: weight(m, sizes=BIG),
            r"'hidden.weight' of shape \[1099511627776, .* is larger than its 256",
        ),
        (
            lambda m: weight(m, sizes=BIG, strides=[{"as_int": 0}, {"as_int": 0}]),
            "'hidden.weight' repeats its numbers",
        ),
        (lambda m: weight(m, storage_offset={"as_int": 1}), "is larger than its 256 numbers"),
        (lambda m: weight(m, storage_offset={"as_int": -1}), "is no size"),
        (lambda m: weight(m, sizes=[{"as_int": 16}]), "not as many strides as axes"),
        (lambda m: weight(m, dtype=29), "has the type 29: export the model in float32"),
        (lambda m: m.pop("data/weights/weight_0"), "is not in the archive"),
        (lambda m: m.update({"data/weights/weight_0": b"abc"}), "has 3 bytes, no whole number"),
        (lambda m: m.pop("models/model.json"), "0 programs, not one named 'model'"),
        (lambda m: m.pop(WEIGHTS), "has no 'data/weights/model_weights_config.json'"),
        (lambda m: m.update({"models/model.json": b"[" * 200_000}), "RecursionError"),
        (lambda m: m.update({"models/model.json": b"[]"}), "is no JSON object"),
        (lambda m: m.update({"models/other.json": b"{}"}), "2 programs"),
        (lambda m: m.update(byteorder=b"big"), "little-endian"),
        (lambda m: edit(m, lambda p: p["schema_version"].update(major=9)), "has version 9 of its format"),
        (lambda m: edit(m, lambda p: p["graph_module"].pop("signature")), "KeyError: 'signature'"),
        (lambda m: edit(m, lambda p: p["graph_module"]["graph"]["nodes"].pop(0)), "KeyError: 'conv2d'"),
    ],
)
def test_refuses_a_program_or_tensors_of_another_shape(good: Path, tmp_path: Path, change, message: str):
    path = changed(good, tmp_path / "model.pt2", change)

    with pytest.raises(ModelError, match=message):
        load_model(path.parent, Task.image_classification)


def test_refuses_a_graph_that_asks_for_more_memory_than_any_model_needs(good: Path, tmp_path: Path):
    """A few bytes of JSON that would be 4 TiB."""

    def change(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        size = [{"as_ints": [2**20, 2**20]}, {"as_float": 1.0}]
        inputs = [
            {"name": name, "arg": arg, "kind": 1}
            for name, arg in zip(("size", "fill_value"), size, strict=True)
        ]
        made = [{"as_tensor": {"name": "huge"}}]
        nodes.insert(
            0, {"target": "torch.ops.aten.full.default", "inputs": inputs, "outputs": made, "metadata": {}}
        )
        nodes[1]["inputs"][2]["arg"] = {"as_tensor": {"name": "huge"}}

    path = changed(good, tmp_path / "model.pt2", lambda members: edit(members, change))

    assert "more than 16 GiB" in refusal(path)


@pytest.mark.parametrize(
    ("first", "message"),
    [({"as_ints": [0]}, "call of 'mul' gets more than numbers"), ({"as_int": 10}, "too large a size")],
)
def test_refuses_arithmetic_that_never_ends(good: Path, tmp_path: Path, first: dict, message: str):
    """Squared 40 times, 10 has as many digits as a disk has bytes; a list grows as well."""

    def change(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        for number in range(40):
            before = {"as_sym_int": {"as_name": f"n{number - 1}"}} if number else first
            inputs = [{"name": name, "arg": before, "kind": 1} for name in "ab"]
            made = [{"as_sym_int": {"as_name": f"n{number}"}}]
            nodes.insert(
                number, {"target": "_operator.mul", "inputs": inputs, "outputs": made, "metadata": {}}
            )
        nodes[40]["inputs"][3]["arg"] = {"as_sym_ints": [{"as_name": "n39"}, {"as_int": 1}]}

    path = changed(good, tmp_path / "model.pt2", lambda members: edit(members, change))

    assert message in refusal(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_refuses_what_is_no_archive(tmp_path: Path, content: bytes):
    (tmp_path / "model.pt2").write_bytes(content)

    refusal(tmp_path / "model.pt2")


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_archive_is_read_or_refused(good: Path, tmp_path_factory, data: st.DataObject):
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path = tmp_path_factory.mktemp("damaged") / "model.pt2"
    path.write_bytes(bytes(content[:cut]))

    with suppress(ModelError):
        load_model(path.parent, Task.image_classification)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_json_of_another_shape_is_refused(good: Path, tmp_path_factory, data: st.DataObject):
    def change(members: Members) -> None:
        name = data.draw(st.sampled_from(["models/model.json", WEIGHTS]))
        value = json.loads(members[name])
        holder, key = data.draw(st.sampled_from(list(_places(value))))
        holder[key] = data.draw(JSON)
        members[name] = json.dumps(value).encode()

    path = changed(good, tmp_path_factory.mktemp("changed") / "model.pt2", change)

    with suppress(ModelError):
        load_model(path.parent, Task.image_classification)


def _places(value: Any) -> Any:
    """Every value inside, as its holder and the key there."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def test_tensors_of_one_memory_are_one_object(good: Path, tmp_path: Path):
    def change(config: dict[str, Any]) -> None:
        config["config"]["alias"] = config["config"]["hidden.weight"]

    path = changed(good, tmp_path / "model.pt2", lambda members: edit(members, change, WEIGHTS))

    tensors = read_archive(path).tensors
    assert tensors["alias"] is tensors["hidden.weight"]
