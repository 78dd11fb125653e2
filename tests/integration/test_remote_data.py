"""Image data sets that stay in S3: shards come through the bounded cache, from real S3."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.refs import DataRef
from schemas.task import Task
from service.settings import Settings
from service.store.blobs import Blobs
from tests import image_shards, tiny
from tests.integration.conftest import Run, order_of, tiny_spec, upload
from workers.cache import Cache, Entry
from workers.data.load import load_bundle
from workers.data.remote import RemoteFolder, data_folder
from workers.data.streamed import StreamedSplit
from workers.errors import StorageError
from workers.messages import DoneMessage
from workers.models.load import load_model
from workers.models.loaded import LoadedModel
from workers.transfer import DATA_FILES, Source, look_at

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    return load_model(tiny.resnet(tmp_path_factory.mktemp("resnet")), Task.image_classification)


class Heard:
    """How many bytes came from S3."""

    def __init__(self) -> None:
        self.fetched = 0

    def __call__(self, done: int, total: int) -> None:
        self.fetched += done > 0


def remote(blobs: Blobs, cache: Path, limit: int, heard: Heard | None = None) -> RemoteFolder:
    source = look_at(blobs, f"s3://{blobs.bucket}/data/", DATA_FILES)
    return RemoteFolder(Cache(blobs, cache, limit), source, heard or Heard())


def epoch(split: StreamedSplit, seed: int | None) -> torch.Tensor:
    shuffle = None if seed is None else torch.Generator().manual_seed(seed)
    return torch.cat([part.inputs["pixel_values"] for part in split.batches(10, shuffle)])


def largest_of(source: Source) -> int:
    return max(blob.bytes for blob in source.files.values())


@pytest.mark.parametrize(
    "make", [image_shards.image_parquets, image_shards.image_tars], ids=["parquet", "tar"]
)
def test_streams_from_s3_what_a_local_folder_holds_and_then_reads_the_cache_alone(
    blobs: Blobs, tmp_path: Path, model: LoadedModel, make: Callable[..., Path]
):
    folder = make(make(tmp_path / "data"), samples=20, shards=1, split="validation", seed=2)
    upload(blobs, folder, "data")
    ref, heard = DataRef(uri="s3://data/images/"), Heard()

    local = load_bundle(folder, ref, model, seed=0, stream_bytes=100).train
    train = load_bundle(
        remote(blobs, tmp_path / "cache", 2**30, heard), ref, model, seed=0, stream_bytes=100
    ).train

    assert isinstance(local, StreamedSplit)
    assert isinstance(train, StreamedSplit)
    assert torch.equal(epoch(train, 3), epoch(local, 3))
    assert heard.fetched > 0
    heard.fetched = 0
    assert torch.equal(epoch(train, None), epoch(local, None))
    assert heard.fetched == 0


def test_a_cache_of_one_shard_streams_all_of_them(blobs: Blobs, tmp_path: Path, model: LoadedModel):
    folder = image_shards.image_parquets(tmp_path / "data")
    image_shards.image_parquets(folder, samples=20, shards=1, split="validation", seed=2)
    upload(blobs, folder, "data")
    limit = largest_of(look_at(blobs, f"s3://{blobs.bucket}/data/", DATA_FILES)) + 10
    found = remote(blobs, tmp_path / "cache", limit)

    train = load_bundle(found, DataRef(uri="s3://data/x/"), model, seed=0, stream_bytes=100).train

    assert isinstance(train, StreamedSplit)
    assert len(epoch(train, None)) == 90
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.parquet"))
    assert kept <= limit


def test_only_many_images_in_formats_that_can_be_read_in_part_stay_in_s3(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upload(blobs, image_shards.image_tars(tmp_path / "data"), "data")
    cache = Cache(blobs, tmp_path / "cache", 2**30)
    ref = DataRef(uri=f"s3://{blobs.bucket}/data/")

    def place(of: DataRef) -> object:
        fetched = Entry(tmp_path, (), hit=True)
        return data_folder(of, cache, lambda _: fetched, lambda: None)

    assert place(ref) == tmp_path
    monkeypatch.setenv("SECATEUR_STREAM_BYTES", "100")
    assert isinstance(place(ref), RemoteFolder)
    assert place(ref.model_copy(update={"task": Task.segmentation})) == tmp_path
    assert place(DataRef(synthetic=True)) is None
    blobs.put_bytes("data/validation.npz", b"x")
    assert place(ref) == tmp_path


def read_for_ever(settings: Settings, cache: Path, limit: int, names: list[str], sizes: list[int]) -> None:
    """In a process of its own: hold one shard after the other and check that it is whole while it is held."""
    folder = remote(Blobs.connect(settings), cache, limit)
    turn = os.getpid()
    while True:
        turn += 1
        number = turn % len(names)
        try:
            with folder.shard(names[number]).open() as path:
                assert path.stat().st_size == sizes[number]
                time.sleep(0.002)
                assert path.stat().st_size == sizes[number]
        except StorageError as error:
            if "all the rest is in use" not in str(error):
                raise


def test_workers_that_evict_each_other_and_are_killed_leave_a_cache_that_works(
    blobs: Blobs, s3_settings: Settings, tmp_path: Path
):
    names = [f"train-{number:06}.tar" for number in range(5)]
    for name in names:
        blobs.put_bytes(f"data/{name}", os.urandom(40_000))
    arguments = (s3_settings, tmp_path / "cache", 130_000, names, [40_000] * 5)
    readers = [SPAWN.Process(target=read_for_ever, args=arguments) for _ in range(3)]
    for reader in readers:
        reader.start()
    time.sleep(6)

    alive = [reader.is_alive() for reader in readers]
    for reader in readers:
        assert reader.pid is not None
        os.kill(reader.pid, signal.SIGKILL)
        reader.join()

    assert alive == [True] * 3
    folder = remote(blobs, tmp_path / "cache", 130_000)
    for name in names:
        with folder.shard(name).open() as path:
            assert path.read_bytes() == blobs.get_bytes(f"data/{name}")
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.tar")) <= 130_000


def test_a_job_trains_on_shards_that_stay_in_s3(
    blobs: Blobs, tmp_path: Path, run_order: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SECATEUR_STREAM_BYTES", "1000")
    zoo = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo")
    folder = image_shards.image_tars(image_shards.image_tars(tmp_path / "data"), split="validation", seed=2)
    data = upload(blobs, folder, "data")
    fine_tune = {"epochs": 1, "batch_size": 32, "augment": "light"}

    ends = [
        run_order(order_of(tiny_spec(zoo, data, fine_tune=fine_tune), id=f"job_{number}")).end()
        for number in range(2)
    ]

    for end in ends:
        assert isinstance(end, DoneMessage), end
    assert ends[0].summary["metric"] == ends[1].summary["metric"]


def test_a_job_without_data_says_what_its_metric_is(blobs: Blobs, tmp_path: Path, run_order: Run):
    zoo = upload(blobs, tiny.resnet(tmp_path / "model"), "zoo")
    spec = tiny_spec(
        zoo,
        "",
        task={"uri": None, "synthetic": True},
        schedule={"kind": "one_shot"},
        fine_tune={"epochs": 0},
    )

    end = run_order(order_of(spec)).end()

    assert isinstance(end, DoneMessage), end
    assert "agreement with the dense model on synthetic inputs" in end.reason
    page = next(key for key in (blob.key for blob in blobs.list("")) if key.endswith("report.html"))
    assert "it says nothing about accuracy" in blobs.get_bytes(page).decode()
