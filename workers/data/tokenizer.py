"""The tokenizer beside a model's weights."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from workers.errors import ModelError
from workers.models.folder import TOKENIZER_CONFIG, names_in, read_json

_FILES = ("tokenizer", "vocab", "merges", "sentencepiece", "spiece", "spm", "source", "target")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    "source.spm",
)
MAX_FILE_BYTES = 256 * 2**20
"""Of each file; the largest vocabularies have 35 MiB."""


def open_tokenizer(folder: Path, **options: bool) -> Any:
    """The tokenizer in `folder`, with `options` of its class; ModelError when it is not there, is broken, or
    would run code."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"the model folder has no tokenizer (it holds {names_in(folder)}): add tokenizer.json and "
            f"{TOKENIZER_CONFIG} with tokenizer.save_pretrained"
        )
    for name in (TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"):
        read_json(folder, name)  # refuses one that asks for code
    for path in folder.glob("*"):
        size = path.stat().st_size
        if path.name.startswith(_FILES) and size > MAX_FILE_BYTES:
            raise ModelError(f"{path.name} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    tokenizer = _opened(folder, options)
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not limit >= 1:
        raise ModelError(f"{TOKENIZER_CONFIG}: 'model_max_length' is {limit!r}: give the number of positions")
    return tokenizer


def _opened(folder: Path, options: dict[str, bool]) -> Any:
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:
        raise ModelError(
            f"the tokenizer cannot be loaded ({error}): save it again as tokenizer.json with save_pretrained"
        ) from error
