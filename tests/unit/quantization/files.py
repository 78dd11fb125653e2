"""ONNX files of tiny models, and inputs for them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from schemas.task import Task
from tests import tiny
from workers.export import export_onnx
from workers.models.load import load_model


def words(samples: int, *, seed: int, length: int = 12) -> dict[str, np.ndarray]:
    """Token ids [N,T] with padding after a random length of 4 or more."""
    random = np.random.default_rng(seed)
    lengths = random.integers(4, length + 1, samples)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    ids = random.integers(len(tiny.SPECIAL), len(tiny.SPECIAL) + len(tiny.WORDS), (samples, length))
    return {"input_ids": ids * mask, "attention_mask": mask}


def sharp_bert(folder: Path) -> Path:
    """A BERT whose attention looks at single words, as a trained one does: a fresh one looks at all alike."""
    model = load_model(tiny.bert(folder / "bert"), Task.text_classification)
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if name.endswith(("query.weight", "key.weight")):
                weight.mul_(60)
            elif name.endswith(("value.weight", "classifier.weight")):
                weight.mul_(20)
    example = {name: torch.from_numpy(value) for name, value in words(2, seed=0).items()}
    return export_onnx(model, folder / "bert.onnx", example).files[0]


def scores(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What the file answers."""
    (found,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)
    return found


def graph(path: Path, nodes: list[onnx.NodeProto], *, width: int, **weights: np.ndarray) -> Path:
    """A file of `nodes` from `x` [N, width] to `y`."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    made = helper.make_graph(nodes, "made", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
