"""A tiny causal language model with a word-level tokenizer, and texts for it."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from schemas.task import Task
from tests.tiny import FILLERS, SPECIAL, WORDS, write_parquet
from workers.models.loaded import Batch, LoadedModel

END = "[SEP]"
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *WORDS, *FILLERS])}
POSITIONS = 32


def llama(folder: Path, *, seed: int = 0) -> LoadedModel:
    """A Llama of two layers, four heads on two key-value heads and tied embeddings: about 6,000 weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
    )
    module = LlamaForCausalLM(config).eval()
    module.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return LoadedModel(
        module=module,
        architecture="transformers/LlamaForCausalLM",
        task=Task.causal_lm,
        classes=len(VOCABULARY),
        folder=folder,
        image_size=None,
        image_channels=0,
        call=scores,
    )


def scores(module: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Scores [N, T, vocabulary]."""
    logits: torch.Tensor = module(**batch, use_cache=False).logits
    return logits


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words between spaces; it has an end of sequence and no padding."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token=END)


def ids(text: str) -> list[int]:
    """The numbers of the words."""
    return [VOCABULARY[word] for word in text.split()]


def text_folder(folder: Path, **splits: list[str]) -> Path:
    """One parquet file with the column `text` for each split."""
    for split, texts in splits.items():
        write_parquet(folder / f"{split}.parquet", text=texts)
    return folder
