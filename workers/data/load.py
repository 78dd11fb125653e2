"""From a local data folder to a bundle: every sample checked before anything is trained."""

from pathlib import Path
from typing import Protocol

from schemas.refs import DataRef
from schemas.task import Task
from workers.data.bundle import Bundle
from workers.data.labelled import load_labelled
from workers.data.language import load_language
from workers.data.memory import MAX_BYTES
from workers.errors import DataError
from workers.models.loaded import LoadedModel


class Reader(Protocol):
    """From a folder to the splits `train`, `validation` and, where it is there, `calibration`."""

    def __call__(
        self, folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int
    ) -> Bundle:
        """DataError says what is wrong with the folder, and which row."""


_READERS: dict[Task, Reader] = {
    Task.image_classification: load_labelled,
    Task.text_classification: load_labelled,
    Task.causal_lm: load_language,
}


def load_bundle(
    folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int = MAX_BYTES
) -> Bundle:
    """The splits `train`, `validation` and, where it is there, `calibration`, as `model` takes them.

    `seed` draws `spec.max_train_samples`. All splits together take at most `max_bytes` of memory. DataError
    says what is wrong with the folder, and which row.
    """
    return _READERS[spec.task](folder, spec, model, seed=seed, max_bytes=max_bytes)


def require_one_batch(bundle: Bundle, batch_size: int) -> None:
    """DataError when the train split does not fill one batch."""
    if len(bundle.train) < batch_size:
        raise DataError(
            f"the train split has {len(bundle.train)} samples, fewer than one batch of {batch_size}: "
            f"set fine_tune.batch_size to {len(bundle.train)} or less, or give more samples"
        )
