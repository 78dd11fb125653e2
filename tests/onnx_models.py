"""Small ONNX files for tests: exported by torch.onnx, and made node by node."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from tests import tiny


class Cnn(nn.Module):
    """A convolution, a depthwise and a pointwise one, and a linear layer: 460 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.fc = nn.Linear(16, tiny.CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(image)))
        hidden = torch.relu(self.pointwise(self.depthwise(hidden)))
        scores: Tensor = self.fc(hidden.mean((2, 3)))
        return scores


def cnn(folder: Path, *, dynamo: bool = False, seed: int = 0) -> Cnn:
    """`model.onnx` in `folder`, and the module that it was exported from."""
    torch.manual_seed(seed)
    module = Cnn().eval()
    export(module, {"image": torch.randn(3, 1, tiny.SIDE, tiny.SIDE)}, folder, dynamo=dynamo)
    return module


class _Scores(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        scores: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return scores


def bert(folder: Path, *, dynamo: bool = False) -> nn.Module:
    """The tiny BERT as `model.onnx`, its tokenizer and config beside it, and the module."""
    tiny.bert(folder)
    module = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    (folder / "model.safetensors").unlink()
    tokens = torch.randint(4, 30, (3, 9))
    example = {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "token_type_ids": torch.zeros_like(tokens),
    }
    export(_Scores(module).eval(), example, folder, dynamo=dynamo)
    return module


def export(module: nn.Module, example: dict[str, Tensor], folder: Path, *, dynamo: bool) -> Path:
    """`model.onnx` with free batch and sequence axes, by the new exporter or the old one."""
    folder.mkdir(parents=True, exist_ok=True)
    axes = {
        name: {0: "batch", 1: "sequence"} if value.ndim == 2 else {0: "batch"}
        for name, value in example.items()
    }
    how = {"dynamic_shapes": tuple(axes.values())} if dynamo else {"dynamic_axes": axes}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                tuple(example.values()),
                folder / "model.onnx",
                input_names=list(example),
                output_names=["scores"],
                dynamo=dynamo,
                external_data=False,
                verbose=False,
                **how,
            )
    finally:
        logging.disable(level)
    return folder / "model.onnx"


def made(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    *,
    shape: Sequence[int | str] = ("batch", 1, 4, 4),
    opset: int = 17,
    ir_version: int = 8,
    domains: Sequence[str] = (),
) -> Path:
    """`model.onnx` of `nodes` from `image` (float, of `shape`) to `scores`, with `weights`."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", "classes"))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(name, 1) for name in domains)]
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=ir_version), folder / "model.onnx")
    return folder / "model.onnx"


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal random float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def linear(folder: Path, **options: object) -> Path:
    """Flatten and one MatMul, of 16 inputs and 4 classes: the weight is `w` [16, 4]."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"], name="fc"),
    ]
    return made(folder, nodes, {"w": numbers(16, 4)}, **options)  # type: ignore[arg-type]
