"""From a program's JSON to a graph of calls, operator by operator; nothing of it is evaluated as code."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from workers.errors import ModelError
from workers.program.archive import DTYPES, Program
from workers.program.inputs import Input, index_of_scores, read_input
from workers.program.operators import CHECKS, WITH_AUTOCAST, WITHOUT_GRADIENT, resolve

MAX_NODES = 20_000
"""Large language models have about 4,000."""
_MAX_DEPTH = 8
_HALF = (torch.float16, torch.bfloat16)
_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
"""By torch._export.serde.schema.MemoryFormat."""
_STRIDED = 7

Values = dict[str, Any]
"""What each name of the program stands for: a node, or a constant."""


@dataclass(frozen=True)
class Built:
    """The graph, which gives the scores alone, and the module that holds its tensors by their own names."""

    root: nn.Module
    graph: fx.Graph
    inputs: tuple[Input, ...]


def build(program: Program) -> Built:
    """The graph of `program`. Raises ModelError where it calls anything that is not on our list of operators,
    or changes its own buffers in another way than in place."""
    builder = _Builder(program)
    inputs = builder.inputs()
    graph = program.json["graph_module"]["graph"]
    builder.nodes(graph, builder.values, depth=0)
    builder.output(graph["outputs"])
    return Built(builder.root, builder.graph, inputs)


class _Builder:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.values: Values = {}
        self.count = 0
        self.device: fx.Node | None = None
        weights = (one for one in program.tensors.values() if isinstance(one, nn.Parameter))
        self.half = any(one.dtype in _HALF for one in weights)

    def inputs(self) -> tuple[Input, ...]:
        """Placeholders for the batch; parameters, buffers and constants are attributes of the root."""
        module = self.program.json["graph_module"]
        specs, given = module["signature"]["input_specs"], module["graph"]["inputs"]
        held: list[tuple[str, str]] = []
        found: list[Input] = []
        for spec, argument in zip(specs, given, strict=True):
            kind, what = _only(spec)
            if kind in ("parameter", "buffer", "tensor_constant"):
                held.append((what["arg"]["name"], self._hold(kind, what)))
            elif kind == "user_input" and "as_tensor" in argument:
                found.append(read_input(argument["as_tensor"]["name"], self.program.json))
            elif kind == "constant_input":
                self.values[what["name"]] = self.value(what["value"], {})
            elif kind != "user_input":
                raise ModelError(f"the program takes a {kind[:50]}, not only tensors: export it without")
        for one in found:
            node = self.graph.placeholder(one.name)
            self.device = self.device or self.graph.call_function(getattr, (node, "device"))
            self.values[one.name] = node
        for name, target in held:
            self.values[name] = self.graph.get_attr(target)
        return tuple(found)

    def _hold(self, kind: str, what: Mapping[str, Any]) -> str:
        target: str = what[f"{kind}_name"]
        tensor = self.program.tensors.get(target)
        if tensor is None:
            raise ModelError(f"the archive has no tensor '{str(target)[:100]}': upload it again")
        path, _, local = target.rpartition(".")
        if not all(part.isidentifier() or part.isdigit() for part in target.split(".")):
            raise ModelError(f"a tensor has the name '{target[:100]}': export the model again")
        holder = _folder(self.root, path)
        if isinstance(tensor, nn.Parameter):
            holder.register_parameter(local, tensor)
        else:
            holder.register_buffer(local, tensor, persistent=bool(what.get("persistent", True)))
        return target

    def nodes(self, graph: Mapping[str, Any], values: Values, depth: int) -> None:
        """All calls of `graph`, in order; what they give is in `values` afterwards."""
        self.count += len(graph["nodes"])
        if self.count > MAX_NODES or depth > _MAX_DEPTH:
            raise ModelError(f"the program has more than {MAX_NODES:,} nodes, or graphs within graphs")
        for node in graph["nodes"]:
            target = node["target"]
            if target in CHECKS:
                continue
            if target in (WITHOUT_GRADIENT, WITH_AUTOCAST):
                self._inline(node, values, depth)
            else:
                self._bind(node["outputs"], self._call(node, values), values)

    def _call(self, node: Mapping[str, Any], values: Values) -> fx.Node:
        function = resolve(node["target"])
        given = [(one["name"], self.value(one["arg"], values)) for one in node["inputs"]]
        if not isinstance(function, torch._ops.OpOverload):
            return self.graph.call_function(function, tuple(value for _, value in given))
        args, kwargs = _as_declared(function, dict(given))
        return self.graph.call_function(function, args, kwargs)

    def _inline(self, node: Mapping[str, Any], values: Values, depth: int) -> None:
        """A region of its own precision or without gradients: its calls take their place in the graph."""
        arguments = [one["arg"] for one in node["inputs"]]
        at = next(place for place, one in enumerate(arguments) if "as_graph" in one)
        inner = arguments[at]["as_graph"]["graph"]
        if node["target"] == WITH_AUTOCAST and arguments[2]["as_bool"]:
            raise ModelError(
                "the program changes its precision (torch.autocast): export the model outside of autocast"
            )
        names = [one["as_tensor"]["name"] for one in inner["inputs"]]
        passed = [self.value(one, values) for one in arguments[at + 1 :]]
        own = dict(zip(names, passed, strict=True))
        self.nodes(inner, own, depth + 1)
        results = [self.value(one, own) for one in inner["outputs"]]
        if node["target"] == WITHOUT_GRADIENT and not arguments[0]["as_bool"]:
            detach = torch.ops.aten.detach.default
            results = [self.graph.call_function(detach, (one,)) for one in results]
        for name, result in zip(_names(node["outputs"]), results, strict=True):
            values[name] = result

    def _bind(self, outputs: Sequence[Mapping[str, Any]], node: fx.Node, values: Values) -> None:
        if len(outputs) == 1 and "as_tensors" not in outputs[0]:
            for name in _names(outputs):
                values[name] = node
            return
        parts = outputs[0]["as_tensors"] if len(outputs) == 1 else outputs
        for place, part in enumerate(parts):
            if "as_none" in part:
                continue
            item = self.graph.call_function(operator.getitem, (node, place))
            if "as_tensors" in part:
                self._bind([part], item, values)
            else:
                values[part["name"] if "name" in part else next(_names([part]))] = item

    def output(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """The scores, and nothing else that the program gives."""
        module = self.program.json["graph_module"]
        specs = module["signature"]["output_specs"]
        kinds = [_only(spec)[0] for spec in specs]
        if other := next((kind for kind in kinds if kind != "user_output"), None):
            raise ModelError(
                f"the program has a result that is no output of the model ('{other[:50]}'): export the model "
                "in evaluation mode, with torch.export.export alone"
            )
        results = [self.value(one, self.values) for one in outputs]
        calls = {entry["fqn"]: entry["signature"] for entry in module["module_call_graph"]}
        index = index_of_scores(calls[""]["out_spec"], len(results))
        if not isinstance(results[index], fx.Node):
            raise ModelError("the program's first result is no tensor: export a model that gives scores")
        self.graph.output(results[index])
        self.graph.eliminate_dead_code()

    def value(self, argument: Mapping[str, Any], values: Values) -> Any:
        """What an argument of a call is."""
        kind, value = _only(argument)
        if kind == "as_tensor":
            return values[value["name"]]
        if kind in _LITERALS:
            return _literal(kind, value)
        if kind == "as_device":
            if self.device is None:
                raise ModelError("the program takes no tensor: export a model with an input")
            return self.device  # that of the batch, whatever the export ran on
        if kind == "as_scalar_type":
            dtype = DTYPES[value]
            return torch.float32 if self.half and dtype in _HALF else dtype
        return self._several(kind, value, values)

    def _several(self, kind: str, value: Any, values: Values) -> Any:
        if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
            inner, content = _only(value)
            return values[content] if inner == "as_name" else _literal(inner, content)
        if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
            return [self._several(kind[:-1], one, values) for one in value]
        if kind == "as_tensors":
            return [values[one["name"]] for one in value]
        if kind == "as_optional_tensors":
            return [self.value(one, values) for one in value]
        if kind == "as_optional_tensor":
            return self.value(value, values)
        if kind == "as_memory_format":
            return _FORMATS[value]
        if kind == "as_layout" and value == _STRIDED:
            return torch.strided
        raise ModelError(
            f"a call of the program has an argument of the kind '{kind[:50]}', which is not read"
        )


_LITERALS: dict[str, type] = {
    "as_bool": bool,
    "as_bools": bool,
    "as_float": float,
    "as_floats": float,
    "as_int": int,
    "as_ints": int,
    "as_none": bool,
    "as_string": str,
    "as_strings": str,
}


def _literal(kind: str, value: Any) -> Any:
    if kind == "as_none":
        return None
    wanted = _LITERALS[kind]
    if kind.endswith("s"):
        return [_literal(kind[:-1], one) for one in value]
    if wanted is float:
        return float(value)  # infinities are strings
    if type(value) is not wanted:
        raise ValueError(f"{str(value)[:50]!r} is no {wanted.__name__}")
    return value


def _only(union: Mapping[str, Any]) -> tuple[str, Any]:
    """The one entry that says which kind it is."""
    ((kind, value),) = union.items()
    return kind, value


def _names(outputs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for output in outputs:
        kind, value = _only(output)
        if kind != "as_none":
            yield value["name"] if kind == "as_tensor" else value["as_name"]


def _as_declared(function: Any, given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for place, declared in enumerate(function._schema.arguments):
        if declared.name not in given:
            continue
        value = given.pop(declared.name)
        if len(args) == place and not declared.kwarg_only:
            args.append(value)
        else:
            kwargs[declared.name] = value
    if given:
        raise ModelError(f"{function} has no argument '{next(iter(given))[:50]}': export the model again")
    return tuple(args), kwargs


def _folder(root: nn.Module, path: str) -> nn.Module:
    for part in path.split(".") if path else ():
        if part not in root._modules:
            root.add_module(part, nn.Module())
        child = root._modules[part]
        assert child is not None
        root = child
    return root
