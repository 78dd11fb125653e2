"""A data set for models whose data nobody has: random inputs, and what the dense model says of them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Split
from workers.data.normalize import as_they_are
from workers.data.text import position_limit, vocabulary_size
from workers.errors import DataError
from workers.models.from_onnx import as_the_file_takes
from workers.models.loaded import LoadedModel
from workers.models.preprocessing import read_preprocessing

SAMPLES = 256
_BATCH = 16


def synthetic_bundle(model: LoadedModel, spec: DataRef, *, seed: int) -> Bundle:
    """`validation` and `calibration` of SAMPLES random inputs each; `train` is empty.

    Images are normal noise of the model's own size, as if normalized; tokens are uniform. Labels are the
    answers of `model` as it is now, which must be the dense one: [N], or [N, T] of a language model.
    DataError where the model states no image size.
    """
    generator = torch.Generator().manual_seed(seed)
    splits = [_inputs(model, spec, generator) for _ in range(2)]
    none = torch.zeros(SAMPLES, dtype=torch.int64)
    drafts = [Split(inputs, none) for inputs in splits]
    bundle = as_the_file_takes(Bundle(drafts[0], drafts[0], as_they_are), model)
    validation, calibration = (Split(one.inputs, _answers(model, bundle, one)) for one in drafts)
    return replace(bundle, train=validation.first(0), validation=validation, calibration=calibration)


def _inputs(model: LoadedModel, spec: DataRef, generator: torch.Generator) -> dict[str, Tensor]:
    if model.image_channels:
        size = read_preprocessing(model.folder, model.image_channels).size or model.image_size
        if size is None:
            raise DataError(
                "data.synthetic: the model states no image size: set 'size' in preprocessor_config.json, or "
                "give data.uri"
            )
        return {"pixel_values": torch.randn(SAMPLES, model.image_channels, *size, generator=generator)}
    length = min(spec.max_length, position_limit(model))
    ids = torch.randint(vocabulary_size(model), (SAMPLES, length), generator=generator)
    if spec.task.is_language_model:
        return {"input_ids": ids}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.inference_mode()
def _answers(model: LoadedModel, bundle: Bundle, split: Split) -> Tensor:
    """The largest score of each sample, or of each token."""

    def batches() -> Iterator[Tensor]:
        for inputs, _ in bundle.batches(split, _BATCH, device=model.device):
            yield model.logits(inputs).argmax(-1).cpu()

    model.module.eval()
    return torch.cat(list(batches())).clone()
