"""An ONNX file as a module: its weights are PyTorch's, its forward is ONNX Runtime's with these weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn.modules import module as hooked

from workers.errors import ModelError
from workers.onnx_model.layers import as_called
from workers.onnx_model.nodes import Reader
from workers.onnx_model.plan import Plan
from workers.onnx_model.tensors import as_ort

_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Opened:
    """A session, and the memory that it reads weights from."""

    session: onnxruntime.InferenceSession
    weights: Mapping[str, onnxruntime.OrtValue]


class OnnxModule(nn.Module):
    """Holds one layer of PyTorch for each prunable node of the file, and every other float tensor beside.

    A forward pass is one of ONNX Runtime on the CPU. Its session is opened anew after the weights changed, in
    place or by loading. Layers with hooks are called too, each with what its node read in that pass, so that
    all who watch layers (norms of inputs, counts of arithmetic) see what they would see in PyTorch. There are
    no gradients.
    """

    def __init__(self, plan: Plan, parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.named_children():
            self.add_module(name, part)
        for name, parameter in parts.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in parts.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.plan = plan
        self.config: object = None
        self._sessions = _Sessions()

    def forward(self, **batch: Tensor) -> Tensor:
        """Scores [N, …] in float32, on the batch's device, of inputs by the file's own names.

        Raises ModelError where ONNX Runtime does not run the file with them.
        """
        device = next(iter(batch.values())).device
        feeds = {name: value.detach().cpu().numpy() for name, value in batch.items()}
        everything = bool(hooked._has_any_global_hook())  # type: ignore[no-untyped-call]
        watched = [call for call in self._calls() if everything or _is_watched(call[0])]
        values = _Values(self, feeds)
        wanted = [reader.value for _, reader in watched]
        if everything:
            wanted += [name for node in self.plan.products for name in node.input[:2]]
        values.run(wanted)
        for layer, reader in watched:
            weight = layer.weight
            assert isinstance(weight, Tensor)
            layer(as_called(reader, values[reader.value], weight).to(device, weight.dtype))
        if everything:
            for node in self.plan.products:
                torch.matmul(*(values[name].float() for name in node.input[:2]))
        return values[self.plan.output].to(device, torch.float32)

    def get_input_embeddings(self) -> nn.Module:
        """The table that token ids look rows up in, as transformers' models name it."""
        assert self.plan.tokens is not None, "the file takes images"
        return self.get_submodule(self.plan.tokens.rpartition(".")[0])

    def _calls(self) -> Iterator[tuple[nn.Module, Reader]]:
        for name, reader in self.plan.calls:
            yield self.get_submodule(name), reader

    def initializers(self) -> Iterator[tuple[str, Tensor]]:
        """Names and numbers of the file's tensors as they are now, each in the file's own layout."""
        state = self.state_dict()
        for name, held in self.plan.held.items():
            value = state[held.name]
            yield name, value.t() if held.swapped else value

    def _session(self, *, with_values: bool) -> onnxruntime.InferenceSession:
        """For the weights as they are now; `with_values`: what layers read are outputs as well."""
        state = self.state_dict()
        given = [held.name for held in self.plan.held.values() if held.given]
        stamp = tuple((state[name].data_ptr(), state[name]._version) for name in given)
        return self._sessions.at(stamp, with_values, lambda: _opened(self, with_values))


class _Sessions:
    """The sessions of one module. A copy of the module begins without any."""

    def __init__(self) -> None:
        self._open: dict[bool, tuple[_Stamp, Opened]] = {}

    def __deepcopy__(self, memo: object) -> "_Sessions":
        return _Sessions()

    def at(self, stamp: _Stamp, kind: bool, make: Callable[[], Opened]) -> onnxruntime.InferenceSession:
        if kind not in self._open or self._open[kind][0] != stamp:
            self._open.pop(kind, None)  # first, so that there are never two copies of the weights
            self._open[kind] = stamp, make()
        return self._open[kind][1].session


class _Values:
    """Tensors of one pass by name: inputs, weights, and what nodes gave."""

    def __init__(self, module: OnnxModule, feeds: Mapping[str, np.ndarray]) -> None:
        self._module = module
        self._feeds = feeds
        self._known = {name: torch.from_numpy(value) for name, value in feeds.items()}

    def run(self, wanted: Sequence[str]) -> None:
        """One pass; the scores and the values named `wanted` are known afterwards."""
        plan = self._module.plan
        fetched = dict.fromkeys([plan.output, *(name for name in wanted if name in _inner(plan))])
        session = self._module._session(with_values=bool(wanted))
        try:
            found = session.run(list(fetched), self._feeds)
        except Exception as error:  # each of its errors is a class of its own, with Exception for a base
            raise ModelError(f"ONNX Runtime does not run the ONNX file: {first_line(error)}") from error
        self._known.update(zip(fetched, map(torch.from_numpy, found), strict=True))

    def __getitem__(self, name: str) -> Tensor:
        if name in self._known:
            return self._known[name]
        return dict(self._module.initializers())[name]


def _inner(plan: Plan) -> set[str]:
    return {name for node in plan.graph.graph.node for name in node.output}


def _is_watched(layer: nn.Module) -> bool:
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _opened(module: OnnxModule, with_values: bool) -> Opened:
    plan, graph = module.plan, module.plan.graph
    if with_values:
        graph = ModelProto.FromString(graph.SerializeToString())
        inner, given = _inner(plan), {one.name for one in graph.graph.output}
        read = [reader.value for _, reader in plan.calls]
        read += [name for node in plan.products for name in node.input[:2]]
        for name in dict.fromkeys(read):
            if name in inner and name not in given:
                graph.graph.output.add(name=name)
    weights = {name: as_ort(value) for name, value in module.initializers() if plan.held[name].given}
    return open_session(graph, weights)


def open_session(graph: ModelProto, weights: Mapping[str, onnxruntime.OrtValue]) -> Opened:
    """On the CPU, with as many threads as torch has. Raises ModelError where ONNX Runtime refuses it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    try:
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # as above: the base of its errors
        raise ModelError(f"ONNX Runtime does not open the ONNX file: {first_line(error)}") from error
    return Opened(session, weights)


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its pages of detail."""
    return str(error).strip().partition("\n")[0][:300]
