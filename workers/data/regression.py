"""Images or texts with one number each."""

from pathlib import Path

from schemas.refs import DataRef
from workers.data.bundle import Bundle
from workers.data.labelled import load_labelled
from workers.models.loaded import LoadedModel


def load_regression(folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int) -> Bundle:
    """As `load_labelled`, with labels [N] float32. Without `spec.input_column` the model's own kind of input
    names the column: 'image' or 'text'."""
    column = spec.input_column or ("image" if model.image_channels else "text")
    named = spec.model_copy(update={"input_column": column})
    return load_labelled(folder, named, model, seed=seed, max_bytes=max_bytes)
