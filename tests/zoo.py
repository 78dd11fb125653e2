"""Models as bytes, written without the libraries that will read them."""

import json
from math import prod
from typing import Any

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "BOOL": 1}
RESNET = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}
BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert"}


def safetensors(**tensors: tuple[str, list[int]]) -> bytes:
    """A file of zeros with these types and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + prod(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return with_header(json.dumps(header).encode(), end)


def with_header(header: bytes, values: int = 0) -> bytes:
    """Any header, and so many bytes of values."""
    return len(header).to_bytes(8, "little") + header + bytes(values)


def config(base: dict[str, Any] = RESNET, **changes: Any) -> bytes:
    """A `config.json`."""
    return json.dumps({**base, **changes}).encode()
