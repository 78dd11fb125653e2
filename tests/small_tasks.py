"""A tiny model and data for each task of text, numbers and sound, with the spec that reads them.

Models have two layers of width 32, data sets a few dozen samples.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from schemas.refs import DataRef
from tests import tiny
from tests.tiny import FILLERS, WORDS, write_parquet

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *WORDS, *FILLERS])}
TAGS = {0: "O", 1: "B-TOPIC", 2: "I-TOPIC"}
RATE = 1000
"""Samples a second of the sounds."""
SPLITS = (("train", 24, 1), ("validation", 12, 2))

BERT: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
T5: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
    "forced_eos_token_id": 3,
}
WAV2VEC2: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "num_labels": tiny.CLASSES,
}


def save(module: transformers.PreTrainedModel, folder: Path) -> Path:
    """The model with the tokenizer."""
    module.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    """Words between spaces, one or two texts, with all special tokens of a BERT."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, VOCABULARY[name]) for name in ("[CLS]", "[SEP]")],
    )
    named = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{**named, **options},
    )


def bert(name: str, folder: Path, **config: Any) -> Path:
    """`transformers.BertFor…` with random weights."""
    torch.manual_seed(0)
    return save(getattr(transformers, name)(transformers.BertConfig(**{**BERT, **config})), folder)


def token_classifier(folder: Path) -> Path:
    """A BERT that finds topics."""
    label2id = {name: number for number, name in TAGS.items()}
    return bert("BertForTokenClassification", folder, id2label=TAGS, label2id=label2id)


def t5(folder: Path) -> Path:
    """A T5 with tied embeddings."""
    torch.manual_seed(0)
    return save(transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)), folder)


def bart(folder: Path) -> Path:
    """A BART."""
    torch.manual_seed(0)
    return save(transformers.BartForConditionalGeneration(transformers.BartConfig(**BART)), folder)


def wav2vec2(folder: Path, **config: Any) -> Path:
    """A Wav2Vec2 classifier of raw sound."""
    torch.manual_seed(0)
    parsed = transformers.Wav2Vec2Config(**{**WAV2VEC2, **config})
    transformers.Wav2Vec2ForSequenceClassification(parsed).save_pretrained(folder)
    mask = parsed.feat_extract_norm == "layer"
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=mask)
    extractor.save_pretrained(folder)
    return folder


def spectrogram_transformer(folder: Path) -> Path:
    """An AST, whose extractor makes a spectrogram of fixed length."""
    torch.manual_seed(0)
    config = transformers.ASTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_length=32,
        num_mel_bins=32,
        num_labels=tiny.CLASSES,
    )
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(sampling_rate=16_000, num_mel_bins=32, max_length=32).save_pretrained(
        folder
    )
    return folder


def sentences(count: int, seed: int) -> list[list[str]]:
    """Lists of 4 to 12 words."""
    random = np.random.default_rng(seed)
    return [list(random.choice([*WORDS, *FILLERS], int(random.integers(4, 13)))) for _ in range(count)]


def tagged(folder: Path) -> Path:
    """Words and their tags: a topic's first word is B, the next ones I."""
    for split, count, seed in SPLITS:
        words = sentences(count, seed)
        tags = []
        for sentence in words:
            is_topic = [word in WORDS for word in sentence]
            before = [False, *is_topic[:-1]]
            tags.append([int(here) + int(here and last) for here, last in zip(is_topic, before, strict=True)])
        write_parquet(folder / f"{split}.parquet", tokens=words, ner_tags=tags)
    return folder


def questions(folder: Path) -> Path:
    """Which topic a text of fillers has: its answer is two words of it."""
    for split, count, seed in SPLITS:
        random = np.random.default_rng(seed)
        contexts, answers = [], []
        for _ in range(count):
            words = list(random.choice(FILLERS, int(random.integers(8, 30))))
            place = int(random.integers(0, len(words)))
            found = " ".join(random.choice(WORDS, 2))
            before = " ".join(words[:place])
            start = len(before) + 1 if before else 0
            contexts.append(" ".join([*words[:place], found, *words[place:]]))
            answers.append({"text": [found], "answer_start": [start]})
        write_parquet(
            folder / f"{split}.parquet",
            question=["filler0 filler1"] * count,
            context=contexts,
            answers=answers,
        )
    return folder


def numbered(folder: Path) -> Path:
    """Texts with the share of their words that are of a topic."""
    for split, count, seed in SPLITS:
        words = sentences(count, seed)
        shares = [sum(word in WORDS for word in one) / len(one) for one in words]
        write_parquet(folder / f"{split}.parquet", text=[" ".join(one) for one in words], label=shares)
    return folder


def numbered_images(folder: Path) -> Path:
    """Images with their mean brightness."""
    for split, count, seed in SPLITS:
        pixels, _ = tiny.images(count, seed=seed)
        cells = [{"bytes": tiny.png(one), "path": None} for one in pixels]
        write_parquet(folder / f"{split}.parquet", image=cells, label=pixels.mean((1, 2)) / 255)
    return folder


def texts(folder: Path) -> Path:
    """Texts without labels."""
    for split, count, seed in SPLITS:
        write_parquet(folder / f"{split}.parquet", text=[" ".join(one) for one in sentences(count, seed)])
    return folder


def pairs(folder: Path) -> Path:
    """Texts, and the same without fillers."""
    for split, count, seed in SPLITS:
        words = sentences(count, seed)
        targets = [" ".join(word for word in one if word in WORDS) for one in words]
        write_parquet(folder / f"{split}.parquet", text=[" ".join(one) for one in words], target=targets)
    return folder


def wav(wave: np.ndarray, rate: int = RATE, kind: str = "WAV") -> bytes:
    """One sound file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind)
    return buffer.getvalue()


def tone(label: int, samples: int, random: np.random.Generator) -> np.ndarray:
    """Noise with a tone, whose pitch is the class."""
    time = np.arange(samples) / RATE
    noise = random.normal(0, 0.1, samples)
    return (0.5 * np.sin(2 * np.pi * 40 * (label + 1) * time) + noise).clip(-1, 1).astype(np.float32)


def sounds(folder: Path, rate: int = RATE) -> Path:
    """WAV files of 0.4 to 0.6 seconds at `RATE`."""
    for split, count, seed in SPLITS:
        random = np.random.default_rng(seed)
        labels = random.integers(0, tiny.CLASSES, count)
        cells = [
            {"bytes": wav(tone(int(one), int(random.integers(400, 600)), random), rate), "path": None}
            for one in labels
        ]
        write_parquet(folder / f"{split}.parquet", audio=cells, label=labels)
    return folder


def data(task: str, **fields: Any) -> DataRef:
    """The spec of a data folder."""
    return DataRef.model_validate({"uri": "s3://data/any/", "task": task, **fields})


Case = tuple[Callable[[Path], Path], Callable[[Path], Path], DataRef]

CASES: dict[str, Case] = {
    "text-classification": (
        lambda folder: bert("BertForSequenceClassification", folder, num_labels=tiny.CLASSES),
        lambda folder: tiny.text_parquet(folder, train=24, validation=12),
        data("text-classification"),
    ),
    "token-classification": (token_classifier, tagged, data("token-classification")),
    "question-answering": (
        lambda folder: bert("BertForQuestionAnswering", folder),
        questions,
        data("question-answering", max_length=24),
    ),
    "regression of texts": (
        lambda folder: bert("BertForSequenceClassification", folder, num_labels=1),
        numbered,
        data("regression"),
    ),
    "regression of images": (
        lambda folder: tiny.resnet(folder, num_labels=1),
        numbered_images,
        data("regression"),
    ),
    "masked-lm": (
        lambda folder: bert("BertForMaskedLM", folder),
        texts,
        data("masked-lm", max_length=16),
    ),
    "seq2seq-lm of T5": (t5, pairs, data("seq2seq-lm")),
    "seq2seq-lm of BART": (bart, pairs, data("seq2seq-lm")),
    "audio-classification": (wav2vec2, sounds, data("audio-classification")),
}
"""By a name for the reader: the model, the data, the spec."""
