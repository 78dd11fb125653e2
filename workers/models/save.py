"""Write a model so that its own library loads it back, zeros in place."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedModel

from workers.models.folder import CONFIG, PREPROCESSOR, TOKENIZER_CONFIG, TORCH_EXPORT, read_config
from workers.models.loaded import LoadedModel
from workers.models.weights import SINGLE, unique_tensors
from workers.onnx_model.module import OnnxModule
from workers.onnx_model.write import write_tensors
from workers.program.module import ProgramModule

COMPANIONS = (
    PREPROCESSOR,
    TOKENIZER_CONFIG,
    "processor_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "chat_template.jinja",
)
"""Files beside the weights that the library needs to use the model."""


def save_model(model: LoadedModel, folder: Path) -> None:
    """`model.safetensors`, `config.json` and the preprocessor's and tokenizer's files, into `folder`.

    A transformers config says float32 afterwards: that is what the weights are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model.module, OnnxModule):
        write_tensors(model.module, folder / SINGLE)
        if (model.folder / CONFIG).is_file():
            shutil.copyfile(model.folder / CONFIG, folder / CONFIG)
    elif isinstance(model.module, ProgramModule):
        save_file(unique_tensors(model.module), folder / SINGLE, metadata={"format": "pt"})
        config = {**read_config(model.folder), **TORCH_EXPORT}  # which names the archive beside the weights
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    elif isinstance(model.module, PreTrainedModel):
        # one file whatever its size; tensor names go back to those of the hub
        model.module.save_pretrained(folder, max_shard_size="1000TB")
    else:
        save_file(unique_tensors(model.module), folder / SINGLE, metadata={"format": "pt"})
        shutil.copyfile(model.folder / CONFIG, folder / CONFIG)
    for name in COMPANIONS:
        if (model.folder / name).is_file():
            shutil.copyfile(model.folder / name, folder / name)
