"""Images with one class each, in memory or, where they are too many for it, streamed from their shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from schemas.refs import DataRef
from workers.data.bundle import Bundle, Samples
from workers.data.decoding import Pool
from workers.data.files import SplitFiles, names_of, no_split, split_names
from workers.data.images import Decoder, refuse_channels
from workers.data.labelled import LabelledReader
from workers.data.memory import Allowance
from workers.data.normalize import Normalize
from workers.data.remote import RemoteFolder
from workers.data.shards import LocalShard, Shard
from workers.data.stored import Stored
from workers.data.stored_parquet import open_parquet
from workers.data.stored_tar import open_tars
from workers.data.streamed import stream
from workers.errors import DataError
from workers.models.loaded import LoadedModel

STREAM_BYTES = 2 * 2**30
"""Default size of the decoded images of a split above which they are streamed."""


def load_pictures(
    folder: Path | RemoteFolder,
    spec: DataRef,
    model: LoadedModel,
    *,
    seed: int,
    max_bytes: int,
    stream_bytes: int,
) -> Bundle:
    """Splits of `pixel_values` [N,C,H,W] uint8 from parquet, tar, `.npz` or safetensors files.

    A split of parquet or tar files whose images take more than `stream_bytes` decoded is streamed, and one
    whose files are in S3 fetches them as it needs them. `train` may be empty where it is not there at all.
    """
    reader = LabelledReader(spec, model, Allowance(max_bytes))
    assert reader.preprocessing is not None
    decoder = Decoder(reader.preprocessing, model.image_channels, "")
    pictures = _Pictures(
        folder, spec, model, reader, Pool(decoder, torch.get_num_threads()), seed, stream_bytes
    )
    train = pictures.split("train", spec.max_train_samples)
    validation = pictures.split("validation", None)
    if validation is None:
        raise no_split("validation", pictures.names)
    return Bundle(
        validation.first(0) if train is None else train,
        validation,
        Normalize(reader.preprocessing),
        pictures.split("calibration", None),
    )


@dataclass(frozen=True)
class _Pictures:
    folder: Path | RemoteFolder
    spec: DataRef
    model: LoadedModel
    reader: LabelledReader
    pool: Pool
    seed: int
    stream_bytes: int

    @property
    def names(self) -> list[str]:
        return names_of(self.folder) if isinstance(self.folder, Path) else self.folder.names

    def split(self, split: str, limit: int | None) -> Samples | None:
        """None: it is not there."""
        names = split_names(self.names, split)
        if not names:
            return None
        if isinstance(self.folder, Path) and not names[0].endswith((".parquet", ".tar")):
            files = SplitFiles(split, tuple(self.folder / name for name in names))
            return self.reader.read(files, limit, self.seed)
        refuse_channels(self.model.image_channels)
        return stream(
            self._stored([self._shard(name) for name in names], split),
            self.pool,
            limit=limit,
            seed=self.seed,
            stream_bytes=self.stream_bytes,
            allowance=self.reader.allowance,
        )

    def _shard(self, name: str) -> Shard:
        return (
            LocalShard(self.folder / name, name) if isinstance(self.folder, Path) else self.folder.shard(name)
        )

    def _stored(self, shards: Sequence[Shard], split: str) -> Stored:
        spec = self.spec
        if shards[0].name.endswith(".tar"):
            return open_tars(shards, split, self.model, image=spec.input_column, label=spec.label_column)
        if not shards[0].name.endswith(".parquet"):
            raise DataError(f"{shards[0].name} cannot be read as images: give parquet or tar files")
        return open_parquet(shards, split, self.model, image=spec.input_name, label=spec.label_name)
