"""From texts to token ids, with the tokenizer of the model's folder."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from schemas.task import Task
from workers.data.memory import Allowance
from workers.data.tokenizer import open_tokenizer
from workers.errors import DataError, ModelError
from workers.models.loaded import LoadedModel

_READS_THE_LAST_TOKEN = (Task.text_classification, Task.regression)
"""A decoder that classifies looks for the padding of a text in its ids, and so must know the padding's."""


def tokenize(
    chunks: Iterable[list[tuple[int, Any]]],
    *,
    model: LoadedModel,
    max_length: int,
    where: str,
    allowance: Allowance,
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` [N,T] int64, T the longest text's tokens; DataError names a bad row.

    Longer texts are cut at `max_length`, or before it where the model has fewer positions.
    """
    tokenizer = load_tokenizer(model)
    length = longest_input(tokenizer, model, max_length)
    ids: list[np.ndarray] = []
    for chunk in chunks:
        texts = [text_of(row, value, where) for row, value in chunk]
        encoded = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        ids.extend(np.asarray(one, np.int32) for one in encoded)
    return padded_inputs({"input_ids": ids}, tokenizer, where=where, allowance=allowance)


def load_tokenizer(model: LoadedModel, **options: bool) -> Any:
    """The tokenizer beside the weights; ModelError when it is not there, broken, or cannot pad."""
    tokenizer = open_tokenizer(model.folder, **options)
    unknown = model.task in _READS_THE_LAST_TOKEN and getattr(_config(model), "pad_token_id", 0) is None
    if tokenizer.pad_token_id is None or unknown:
        raise ModelError(
            "the model cannot take texts of different lengths: set 'pad_token' in tokenizer_config.json "
            "and 'pad_token_id' in config.json"
        )
    return tokenizer


def load_fast_tokenizer(model: LoadedModel, **options: bool) -> Any:
    """A tokenizer that says which characters each token is made of; ModelError where it cannot."""
    tokenizer = load_tokenizer(model, **options)
    if not tokenizer.is_fast:
        raise ModelError(
            f"task '{model.task}' needs to know which characters a token is made of, and "
            f"{type(tokenizer).__name__} cannot say: add the tokenizer.json of a fast tokenizer"
        )
    return tokenizer


def padded_inputs(
    columns: Mapping[str, Sequence[np.ndarray]], tokenizer: Any, *, where: str, allowance: Allowance
) -> dict[str, Tensor]:
    """Each column [N,T] int64, T the longest row's tokens, and `attention_mask`; `input_ids` is one of them.

    Padding is on the tokenizer's own side. DataError where it would take more memory than is allowed.
    """
    rows = columns["input_ids"]
    longest = max((len(one) for one in rows), default=1) or 1
    size = len(rows) * longest * 8 * (len(columns) + 1)
    allowance.take(size, f"{where}: {len(rows):,} texts of {longest} tokens")
    left = tokenizer.padding_side == "left"
    ones = [np.ones(len(one), np.int8) for one in rows]
    return {
        name: padded(values, longest, fill=tokenizer.pad_token_id if name == "input_ids" else 0, left=left)
        for name, values in (*columns.items(), ("attention_mask", ones))
    }


def padded(rows: Sequence[np.ndarray], length: int, *, fill: int, left: bool = False) -> Tensor:
    """Rows of at most `length` numbers as [N, length] int64."""
    filled = np.full((len(rows), length), fill, np.int64)
    for row, one in enumerate(rows):
        filled[row, slice(length - len(one), None) if left else slice(len(one))] = one
    return torch.from_numpy(filled)


def check_ids(ids: Tensor, model: LoadedModel, where: str) -> None:
    """DataError when ids [N,T] hold a token or a length that the model does not have."""
    known = vocabulary_size(model)
    bad = ((ids < 0) | (ids >= known)).nonzero()
    if len(bad):
        row, place = bad[0].tolist()
        raise DataError(
            f"{where}: row {row} holds token {int(ids[row, place])}, "
            f"the model has the tokens 0 to {known - 1}: "
            "use the tokenizer that belongs to this model"
        )
    if ids.shape[1] > position_limit(model):
        raise DataError(
            f"{where}: texts have {ids.shape[1]} tokens, the model has {position_limit(model)} positions: "
            "cut them"
        )


def vocabulary_size(model: LoadedModel) -> int:
    """Rows of the model's input embedding; where it does not say which that is, of its largest."""
    embeddings = getattr(model.module, "get_input_embeddings", None)
    if embeddings is not None:
        return int(embeddings().weight.shape[0])
    tables = (part.num_embeddings for part in model.module.modules() if isinstance(part, nn.Embedding))
    return max(tables, default=2**31)


def longest_input(tokenizer: Any, model: LoadedModel, max_length: int) -> int:
    """Tokens that a text may have: `max_length`, or what tokenizer and model can take."""
    return min(max_length, int(tokenizer.model_max_length), position_limit(model))


def position_limit(model: LoadedModel) -> int:
    """The longest input that the model's position embeddings allow."""
    limit = int(getattr(_config(model), "max_position_embeddings", None) or 2**31)
    for name, part in model.module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            # RoBERTa counts positions from after the padding's number
            taken = 0 if part.padding_idx is None else part.padding_idx + 1
            limit = min(limit, int(part.num_embeddings) - taken)
    return limit


def text_of(row: int, value: Any, where: str) -> str:
    """A cell that must be a text; DataError names the row."""
    if isinstance(value, str):
        return value
    raise DataError(f"{where}: row {row} holds {type(value).__name__} where a text should be: remove the row")


def _config(model: LoadedModel) -> Any:
    return getattr(model.module, "config", None)
