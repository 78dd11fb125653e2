"""Texts and the texts that a model should make of them: translations, summaries."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.files import SplitFiles
from workers.data.memory import Allowance
from workers.data.parquet import open_table
from workers.data.rows import choose, together
from workers.data.splits import needs_parquet, read_splits
from workers.data.text import check_ids, load_tokenizer, longest_input, padded, padded_inputs, text_of
from workers.errors import DataError, ModelError
from workers.loss import IGNORED
from workers.models.loaded import LoadedModel

DECODER_IDS = "decoder_input_ids"


def load_pairs(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """Splits of parquet files with a text and its target, each cut at `spec.max_length` tokens.

    The decoder reads the target one token late, as the model's own rule says. DataError names a bad row.
    """
    reader = _Reader(spec, model, seed, Allowance(max_bytes))
    return read_splits(folder, spec, reader.read)


class _Reader:
    def __init__(self, spec: DataRef, model: LoadedModel, seed: int, allowance: Allowance) -> None:
        self.spec = spec
        self.model = model
        self.seed = seed
        self.allowance = allowance
        self.tokenizer = load_tokenizer(model)
        self.length = longest_input(self.tokenizer, model, spec.max_length)

    def read(self, files: SplitFiles, limit: int | None) -> Split:
        """One split; with `limit` so many of its pairs."""
        needs_parquet(files, self.spec.task)
        names = [self.spec.input_name, self.spec.label_name]
        table = open_table(files, names)
        of_text, of_target = (table.where(name) for name in names)
        ids: list[np.ndarray] = []
        targets: list[np.ndarray] = []
        for chunk in together(table, names, choose(table.rows, limit, self.seed)):
            texts = [text_of(row, cells[0], of_text) for row, cells in chunk]
            wanted = [text_of(row, cells[1], of_target) for row, cells in chunk]
            options = {"truncation": True, "max_length": self.length}
            ids += _rows(self.tokenizer(texts, **options))
            new = _rows(self.tokenizer(text_target=wanted, **options))
            _refuse_empty([row for row, _ in chunk], new, of_target)
            targets += new
        inputs = padded_inputs({"input_ids": ids}, self.tokenizer, where=of_text, allowance=self.allowance)
        longest = max(len(one) for one in targets)
        self.allowance.take(len(targets) * longest * 16, f"{of_target}: {longest} tokens each")
        labels = padded(targets, longest, fill=IGNORED)
        inputs[DECODER_IDS] = read_late(labels, self.model)
        check_ids(inputs["input_ids"], self.model, of_text)
        check_ids(inputs[DECODER_IDS], self.model, of_target)
        return Split(inputs, labels)


def read_late(labels: Tensor, model: LoadedModel) -> Tensor:
    """What a decoder reads [N,T] to predict `labels` [N,T]: shifted right by the model's own rule.

    Models without a rule of their own begin with the config's `decoder_start_token_id`, as all that the
    library has do. ModelError where it is not there.
    """
    module = cast(PreTrainedModel, model.module)
    own = getattr(module, "prepare_decoder_input_ids_from_labels", None)
    if own is not None:
        shifted: Tensor = own(labels)
        return shifted
    config: Any = module.config
    if config.decoder_start_token_id is None or config.pad_token_id is None:
        raise ModelError(
            "config.json: the decoder needs a token to begin with and one to pad with: set "
            "'decoder_start_token_id' and 'pad_token_id'"
        )
    late = torch.full_like(labels, config.decoder_start_token_id)
    late[:, 1:] = labels[:, :-1]
    return late.masked_fill(late == IGNORED, config.pad_token_id)


def _refuse_empty(rows: list[int], targets: list[np.ndarray], where: str) -> None:
    for row, one in zip(rows, targets, strict=True):
        if not len(one):
            raise DataError(f"{where}: row {row} has no tokens: give a text, or remove the row")


def _rows(encoded: Any) -> list[np.ndarray]:
    return [np.asarray(one, np.int32) for one in encoded["input_ids"]]
