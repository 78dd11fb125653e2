"""Rewrites a GGUF file as a model folder: `python from_gguf.py SOURCE FILE TARGET`."""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

_NOT_OF_THE_ARCHITECTURE = ("architectures", "dtype", "torch_dtype", "quantization_config")


def main(source: str, file: str, target: str) -> None:
    """What `from_pretrained` makes of a GGUF file counts as quantized: its numbers go into a fresh model."""
    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    settings = {
        key: value for key, value in read.config.to_dict().items() if key not in _NOT_OF_THE_ARCHITECTURE
    }
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
