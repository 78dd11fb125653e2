"""What an engine's inspector says of each layer: which kernel was picked, and whether it is a sparse one.

`HasSparseWeights: 1` says that the weights have the pattern, not that a sparse kernel runs: an engine shows
it beside a dense tactic too (NVIDIA/TensorRT issue 4020). Proof is the tactic's name.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SPARSE_TACTIC = re.compile(r"(?:^|_)(?:sparse|sptensor\d|spmma|spgemm)", re.IGNORECASE)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_WITHOUT_MATHS = frozenset({"NoOp", "Reformat", "Constant", "Shuffle", "Identity", "signal", "wait"})


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine."""

    name: str
    type: str
    tactic: str | None
    """None: the inspector names no kernel, as for the subgraphs of the Myelin compiler."""
    has_sparse_weights: bool | None
    """The weights have the pattern; None: it does not say."""
    onnx_nodes: tuple[str, ...]
    """Names of the ONNX nodes that it was made of."""

    @property
    def is_sparse(self) -> bool:
        """A sparse kernel runs."""
        return self.tactic is not None and SPARSE_TACTIC.search(self.tactic) is not None

    @property
    def is_opaque(self) -> bool:
        """It computes something, and nobody says with which kernel."""
        return self.tactic is None and self.type not in _WITHOUT_MATHS


def read_engine(text: str) -> list[EngineLayer]:
    """Layers of `IEngineInspector.get_engine_information(LayerInformationFormat.JSON)`, 8.x to 11.x.

    An engine that was built without `ProfilingVerbosity.DETAILED` has names only: every layer is opaque then.
    Raises ValueError where the text is not such JSON.
    """
    stated = json.loads(text)
    layers = stated.get("Layers") if isinstance(stated, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the inspector's JSON has no list 'Layers'")
    return [_layer(one) for one in layers]


def sparse_layers(layers: Sequence[EngineLayer]) -> list[EngineLayer]:
    """Those in which a sparse kernel runs."""
    return [layer for layer in layers if layer.is_sparse]


def _layer(stated: Any) -> EngineLayer:
    if isinstance(stated, str):
        return EngineLayer(stated, "unknown", None, None, ())
    if not isinstance(stated, dict):
        raise ValueError(f"a layer of the inspector's JSON is a {type(stated).__name__}")
    sparse = stated.get("HasSparseWeights", stated.get("AllowSparse"))
    return EngineLayer(
        name=str(stated.get("Name", "")),
        type=str(stated.get("LayerType", "unknown")),
        tactic=_tactic(stated),
        has_sparse_weights=None if sparse is None else bool(sparse),
        onnx_nodes=tuple(_ONNX_LAYER.findall(str(stated.get("Metadata", "")))),
    )


def _tactic(stated: dict[str, Any]) -> str | None:
    name = stated.get("TacticName")
    return str(name) if name else None
