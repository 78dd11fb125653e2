"""The tokenizer beside a model's weights."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from workers.errors import ModelError
from workers.models.folder import TOKENIZER_CONFIG, names_in, read_json

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_BAD_TOKENIZER = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError)


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer in `folder`; ModelError when it is not there, is broken, or would run code."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"the model folder has no tokenizer (it holds {names_in(folder)}): add tokenizer.json and "
            f"{TOKENIZER_CONFIG} with tokenizer.save_pretrained"
        )
    read_json(folder, TOKENIZER_CONFIG)  # refuses one that asks for code
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _BAD_TOKENIZER as error:
        raise ModelError(
            f"the tokenizer cannot be loaded ({error}): save it again as tokenizer.json with save_pretrained"
        ) from error
