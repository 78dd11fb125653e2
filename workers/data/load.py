"""From a local data folder to a bundle: every sample checked before anything is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

from schemas.fine_tune import AugmentName
from schemas.job_spec import JobSpec
from schemas.refs import DataRef
from schemas.task import Task
from service.settings import Settings
from workers.data.answers import load_answers
from workers.data.audio import load_audio
from workers.data.augment import augmentation
from workers.data.boxes import load_boxes
from workers.data.bundle import Bundle
from workers.data.files import find_optional_split, names_of, no_split
from workers.data.labelled import load_labelled
from workers.data.language import load_language
from workers.data.masks import load_masked
from workers.data.memory import MAX_BYTES
from workers.data.pairs import load_pairs
from workers.data.pictures import STREAM_BYTES, load_pictures
from workers.data.regression import load_regression
from workers.data.remote import RemoteFolder
from workers.data.synthetic import synthetic_bundle
from workers.data.tokens import load_tokens
from workers.errors import DataError
from workers.models.from_onnx import as_the_file_takes
from workers.models.loaded import LoadedModel


class Reader(Protocol):
    """From a folder to the splits `train`, `validation` and, where it is there, `calibration`."""

    def __call__(
        self, folder: Path, spec: DataRef, model: LoadedModel, *, seed: int, max_bytes: int
    ) -> Bundle:
        """DataError says what is wrong with the folder, and which row."""


_READERS: dict[Task, Reader] = {
    Task.text_classification: load_labelled,
    Task.audio_classification: load_audio,
    Task.token_classification: load_tokens,
    Task.question_answering: load_answers,
    Task.regression: load_regression,
    Task.segmentation: load_masked,
    Task.detection: load_boxes,
    Task.causal_lm: load_language,
    Task.masked_lm: load_language,
    Task.seq2seq_lm: load_pairs,
}


def load_data_of(spec: JobSpec, folder: Path | RemoteFolder | None, model: LoadedModel) -> Bundle:
    """The data of a job, which lie in `folder`, as load_bundle has them."""
    return load_bundle(
        folder,
        spec.data,
        model,
        seed=spec.seed,
        stream_bytes=Settings().stream_bytes,
        augment=spec.fine_tune.augment,
        learns=spec.learns,
    )


def load_bundle(
    folder: Path | RemoteFolder | None,
    spec: DataRef,
    model: LoadedModel,
    *,
    seed: int,
    max_bytes: int = MAX_BYTES,
    stream_bytes: int = STREAM_BYTES,
    augment: AugmentName = "none",
    learns: bool = True,
) -> Bundle:
    """The splits `train`, `validation` and, where it is there, `calibration`, as `model` takes them.

    `seed` draws `spec.max_train_samples`. What lies in memory takes at most `max_bytes`; images that take
    more than `stream_bytes` are streamed. `augment` changes training batches of images. `learns`: something
    needs the split `train`, else it may be missing and is empty. Without a folder the data are synthetic.
    DataError says what is wrong with the folder, and which row.
    """
    if folder is None:
        return synthetic_bundle(model, spec, seed=seed)
    if spec.task is Task.image_classification:
        bundle = load_pictures(folder, spec, model, seed=seed, max_bytes=max_bytes, stream_bytes=stream_bytes)
    else:
        assert isinstance(folder, Path)
        _refuse_tars(folder, spec.task)
        bundle = _READERS[spec.task](folder, spec, model, seed=seed, max_bytes=max_bytes)
    if learns and len(bundle.train) == 0:
        raise no_split("train", names_of(folder) if isinstance(folder, Path) else folder.names)
    return as_the_file_takes(replace(bundle, augment=augmentation(augment)), model)


def _refuse_tars(folder: Path, task: Task) -> None:
    for split in ("train", "validation", "calibration"):
        files = find_optional_split(folder, split)
        if files is not None and files.is_tar:
            raise DataError(
                f"{files.paths[0].name}: WebDataset shards are read for image classification, not for task "
                f"'{task}': give parquet files"
            )


def require_one_batch(bundle: Bundle, batch_size: int) -> None:
    """DataError when the train split does not fill one batch."""
    if len(bundle.train) < batch_size:
        raise DataError(
            f"the train split has {len(bundle.train)} samples, fewer than one batch of {batch_size}: "
            f"set fine_tune.batch_size to {len(bundle.train)} or less, or give more samples"
        )
