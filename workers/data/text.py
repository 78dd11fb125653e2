"""From texts to token ids, with the tokenizer of the model's folder."""

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from workers.data.memory import Allowance
from workers.errors import DataError, ModelError
from workers.models.folder import TOKENIZER_CONFIG, names_in, read_json
from workers.models.loaded import LoadedModel

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_BAD_TOKENIZER = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError)


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
    length = min(max_length, tokenizer.model_max_length, position_limit(model))
    ids: list[np.ndarray] = []
    for chunk in chunks:
        texts = [_text(row, value, where) for row, value in chunk]
        encoded = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        ids.extend(np.asarray(one, np.int32) for one in encoded)
    longest = max(1, *(len(one) for one in ids)) if ids else 1
    allowance.take(len(ids) * longest * 16, f"{where}: {len(ids):,} texts of {longest} tokens")
    return _padded(ids, longest, tokenizer)


def load_tokenizer(model: LoadedModel) -> Any:
    """The tokenizer beside the weights; ModelError when it is not there, broken, or cannot pad."""
    folder = model.folder
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"the model folder has no tokenizer (it holds {names_in(folder)}): add tokenizer.json and "
            f"{TOKENIZER_CONFIG} with tokenizer.save_pretrained"
        )
    read_json(folder, TOKENIZER_CONFIG)  # refuses one that asks for code
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BAD_TOKENIZER as error:
        raise ModelError(
            f"the tokenizer cannot be loaded ({error}): save it again as tokenizer.json with save_pretrained"
        ) from error
    if tokenizer.pad_token_id is None or _config(model).pad_token_id is None:
        raise ModelError(
            "the model cannot take texts of different lengths: set 'pad_token' in tokenizer_config.json "
            "and 'pad_token_id' in config.json"
        )
    return tokenizer


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
    """Rows of the model's input embedding."""
    return int(cast(PreTrainedModel, model.module).get_input_embeddings().weight.shape[0])


def position_limit(model: LoadedModel) -> int:
    """The longest input that the model's position embeddings allow."""
    return int(getattr(_config(model), "max_position_embeddings", None) or 2**31)


def _config(model: LoadedModel) -> Any:
    return cast(PreTrainedModel, model.module).config


def _text(row: int, value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    raise DataError(f"{where}: row {row} holds {type(value).__name__} where a text should be: remove the row")


def _padded(ids: list[np.ndarray], longest: int, tokenizer: Any) -> dict[str, Tensor]:
    filled = np.full((len(ids), longest), tokenizer.pad_token_id, np.int64)
    mask = np.zeros_like(filled)
    for row, one in enumerate(ids):
        place = slice(longest - len(one), None) if tokenizer.padding_side == "left" else slice(len(one))
        filled[row, place] = one
        mask[row, place] = 1
    return {"input_ids": torch.from_numpy(filled), "attention_mask": torch.from_numpy(mask)}
