"""Archives that would run code in torch's own loader, by each way in: what it makes is not there."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.task import Task
from tests import programs
from tests.programs import Members, changed, edit
from workers.errors import ModelError
from workers.models.load import load_model


class Bomb:
    """Makes a directory when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "model.pt2"
    return programs.save(programs.exported(programs.Cnn().eval(), programs.images()), path)


def pickled(target: Path) -> bytes:
    """As torch.save writes it."""
    buffer = io.BytesIO()
    torch.save(Bomb(target), buffer)
    return buffer.getvalue()


def code(target: Path) -> str:
    return f"__import__('os').mkdir({str(target)!r})"


def graph_of(program: dict[str, Any]) -> dict[str, Any]:
    return program["graph_module"]["graph"]


def attack(good: Path, tmp_path: Path, change: Callable[[Members], None]) -> None:
    """Load the changed archive, and give images to what was loaded."""
    changed(good, tmp_path / "in" / "model.pt2", change)
    model = load_model(tmp_path / "in", Task.image_classification)
    model.logits(programs.images())


def in_example_inputs(members: Members, target: Path) -> None:
    members["data/sample_inputs/model.pt"] = pickled(target)


def in_a_shape(members: Members, target: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        for meta in graph_of(program)["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code(target)

    edit(members, change)


def in_guards(members: Members, target: Path) -> None:
    edit(members, lambda program: program.update(guards_code=[code(target)]))


def in_metadata(members: Members, target: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        for node in graph_of(program)["nodes"]:
            node["metadata"] = {
                "stack_trace": f"\n{code(target)}",
                "source_fn_stack": "a,torch.os.system",
                "nn_module_stack": f"a,{code(target)},b",
            }

    edit(members, change)


def in_names_of_nodes(members: Members, target: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        graph = graph_of(program)
        for node in graph["nodes"]:
            old = node["name"]
            text = json.dumps(program).replace(f'"name": "{old}"', f'"name": "{old}={code(target)};b"')
            program.clear()
            program.update(json.loads(text))
            return

    edit(members, change)


@pytest.mark.parametrize("where", [in_example_inputs, in_a_shape, in_guards, in_metadata, in_names_of_nodes])
def test_what_torch_would_run_is_not_even_read(good: Path, tmp_path: Path, where):
    attack(good, tmp_path, lambda members: where(members, tmp_path / "was_run"))

    assert not (tmp_path / "was_run").exists()


def as_a_pickled_weight(members: Members, target: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["hidden.weight"].update(use_pickle=True, path_name="weight_99")

    members["data/weights/weight_99"] = pickled(target)
    edit(members, change, "data/weights/model_weights_config.json")


def constant(name: str, content: bytes) -> Callable[[Members, Path], None]:
    def change(members: Members, target: Path) -> None:
        entry = {"path_name": name, "is_param": False, "use_pickle": True, "tensor_meta": None}
        members[f"data/constants/{name}"] = content or pickle.dumps(Bomb(target))
        edit(
            members,
            lambda config: config["config"].update(evil=entry),
            "data/constants/model_constants_config.json",
        )

    return change


def as_all_weights(members: Members, target: Path) -> None:
    members["data/weights/model.pt"] = pickled(target)


def as_a_library(members: Members, target: Path) -> None:
    members["data/aotinductor/model/evil.so"] = b"\x7fELF"


def as_an_operator(name: str, *arguments: Any) -> Callable[[Members, Path], None]:
    def change(members: Members, target: Path) -> None:
        def add(program: dict[str, Any]) -> None:
            texts = [one if isinstance(one, str) else str(target) for one in arguments]
            inputs = [{"name": "", "arg": {"as_string": text}, "kind": 1} for text in texts]
            node = {"target": name, "inputs": inputs, "outputs": [], "metadata": {}}
            graph_of(program)["nodes"].insert(0, node)

        edit(members, add)

    return change


def as_an_operator_in_an_argument(members: Members, target: Path) -> None:
    def change(program: dict[str, Any]) -> None:
        graph_of(program)["nodes"][0]["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}

    edit(members, change)


def as_the_name_of_an_input(members: Members, target: Path) -> None:
    text = members["models/model.json"].decode()
    members["models/model.json"] = text.replace('"pixel_values"', json.dumps(f"a={code(target)}, b")).encode()


def as_the_name_of_a_weight(members: Members, target: Path) -> None:
    evil = json.dumps(f"hidden.{code(target)}")
    for name in ("models/model.json", "data/weights/model_weights_config.json"):
        members[name] = members[name].decode().replace('"hidden.weight"', evil).encode()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (as_a_pickled_weight, "'hidden.weight' is a pickle"),
        (constant("custom_obj_0", b""), "'evil' is a pickle"),
        (constant("opaque_obj_0", b""), "'evil' is a pickle"),
        (as_all_weights, "the weights are a pickle"),
        (as_a_library, "machine code"),
        (as_an_operator("torch.os.mkdir", Path), "calls 'torch.os.mkdir', which is not on the list"),
        (as_an_operator("torch.ops.aten.save", Path), "which is not on the list"),
        (as_an_operator("torch.ops.aten.from_file.default", Path), "which is not on the list"),
        (as_an_operator("torch.ops.load_library", Path), "which is not on the list"),
        (as_an_operator("_operator.attrgetter", "__class__"), "which is not on the list"),
        (as_an_operator("torch.ops.aten.add.__class__", Path), "which is not on the list"),
        (as_an_operator("torch.ops.aten.__init__.__globals__", Path), "which is not on the list"),
        (as_an_operator("torch.ops.aten.mul.left_t", Path), "which is not on the list"),
        (as_an_operator("#triton:kernel", Path), "which is not on the list"),
        (as_an_operator("torch.ops.higher_order.while_loop", Path), "a graph within the graph"),
        (as_an_operator_in_an_argument, "an argument of the kind 'as_operator', which is not read"),
        (as_the_name_of_an_input, "an input of the program is named"),
        (as_the_name_of_a_weight, "a tensor has the name"),
    ],
)
def test_what_would_have_to_run_is_refused(good: Path, tmp_path: Path, where, message: str):
    with pytest.raises(ModelError, match=message):
        attack(good, tmp_path, lambda members: where(members, tmp_path / "was_run"))

    assert not (tmp_path / "was_run").exists()


def test_these_archives_do_run_code_in_torchs_loader(good: Path, tmp_path: Path):
    """Else the tests above would prove nothing."""
    for number, where in enumerate((in_example_inputs, in_a_shape, as_all_weights)):
        target = tmp_path / f"was_run_{number}"
        path = changed(good, tmp_path / f"{number}.pt2", lambda members, w=where, t=target: w(members, t))
        with pytest.raises(Exception):  # noqa: B017, PT011 - it fails on what it got from the pickle, afterwards
            torch.export.load(path)

        assert target.is_dir()


def test_python_and_torch_cannot_be_shown_different_members(good: Path, tmp_path: Path):
    """A second archive before the first one: Python's reader takes the last, and nobody else reads."""
    evil = changed(good, tmp_path / "evil.pt2", lambda members: as_all_weights(members, tmp_path / "was_run"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "model.pt2").write_bytes(evil.read_bytes() + good.read_bytes())

    load_model(tmp_path / "in", Task.image_classification)

    assert not (tmp_path / "was_run").exists()
    assert zipfile.is_zipfile(tmp_path / "in" / "model.pt2")
