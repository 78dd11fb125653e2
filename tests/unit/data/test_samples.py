"""What every kind of split promises, in memory and streamed, from parquet and from tar files."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from schemas.refs import DataRef
from schemas.task import Task
from tests import image_shards, tiny
from workers.data.bundle import Bundle, Samples, Split
from workers.data.load import load_bundle
from workers.data.streamed import StreamedSplit
from workers.errors import DataError
from workers.models.load import load_model
from workers.models.loaded import LoadedModel

REF = DataRef(uri="s3://data/images/")
SAMPLES = 90
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    return load_model(tiny.resnet(tmp_path_factory.mktemp("resnet")), Task.image_classification)


@pytest.fixture(scope="module", params=["image_parquets", "image_tars"])
def folder(request, tmp_path_factory) -> Path:
    make: Make = getattr(image_shards, request.param)
    folder = tmp_path_factory.mktemp(request.param)
    make(folder, samples=SAMPLES)
    return make(folder, samples=20, shards=1, split="validation", seed=2)


@pytest.fixture(scope="module", params=[2**31, 1000], ids=["memory", "streamed"])
def bundle(request, folder: Path, model: LoadedModel) -> Bundle:
    found = load_bundle(folder, REF, model, seed=0, stream_bytes=request.param)
    assert isinstance(found.train, StreamedSplit if request.param == 1000 else Split)
    return found


def pixels() -> torch.Tensor:
    return torch.from_numpy(tiny.images(SAMPLES, seed=1)[0])[:, None]


def labels() -> torch.Tensor:
    return torch.from_numpy(tiny.images(SAMPLES, seed=1)[1])


def together(split: Samples, size: int, seed: int | None) -> Split:
    """All batches as one."""
    shuffle = None if seed is None else torch.Generator().manual_seed(seed)
    parts = list(split.batches(size, shuffle))
    images = torch.cat([part.inputs["pixel_values"] for part in parts])
    return Split({"pixel_values": images}, torch.cat([part.labels for part in parts]))


def test_batches_in_order_are_the_split(bundle: Bundle):
    every = together(bundle.train, 16, None)

    assert len(bundle.train) == SAMPLES
    assert bundle.train.label_shape == ()
    assert torch.equal(every.inputs["pixel_values"], pixels())
    assert torch.equal(every.labels, labels())


def test_the_last_short_batch_comes_in_order_and_not_in_random_order(bundle: Bundle):
    sizes = [len(part) for part in bundle.train.batches(16, None)]
    shuffled = [len(part) for part in bundle.train.batches(16, torch.Generator().manual_seed(0))]

    assert sizes == [16] * 5 + [10]
    assert shuffled == [16] * 5


def test_an_epoch_has_each_sample_once_with_its_own_label(bundle: Bundle):
    every = together(bundle.train, 15, 3)

    rows = [
        int((pixels() == image).flatten(1).all(1).nonzero().item()) for image in every.inputs["pixel_values"]
    ]
    assert sorted(rows) == list(range(SAMPLES))
    assert rows != sorted(rows)
    assert torch.equal(every.labels, labels()[rows])


def test_the_same_generator_gives_the_same_order_and_another_another(bundle: Bundle):
    first, again, other = (together(bundle.train, 16, seed) for seed in (5, 5, 6))

    assert torch.equal(first.inputs["pixel_values"], again.inputs["pixel_values"])
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.inputs["pixel_values"], other.inputs["pixel_values"])


def test_takes_samples_in_the_order_asked_for(bundle: Bundle):
    index = torch.tensor([70, 3, 89, 3, 0])

    taken = bundle.train.take(index)

    assert isinstance(taken, Split)
    assert torch.equal(taken.inputs["pixel_values"], pixels()[index])
    assert torch.equal(taken.labels, labels()[index])


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (2, 2), (500, SAMPLES)])
def test_the_first_are_as_many_as_there_are(bundle: Bundle, count: int, kept: int):
    first = bundle.train.first(count)

    assert isinstance(first, Split)
    assert torch.equal(first.inputs["pixel_values"], pixels()[:kept])


def test_an_epoch_that_was_left_early_does_not_change_the_next(bundle: Bundle):
    next(bundle.train.batches(8, None))
    one = bundle.train.batches(8, torch.Generator().manual_seed(1))
    next(one)

    every = together(bundle.train, 16, None)

    assert torch.equal(every.inputs["pixel_values"], pixels())
    one.close()


def test_a_subset_is_the_same_streamed_and_in_memory(folder: Path, model: LoadedModel):
    ref = DataRef(uri="s3://data/images/", max_train_samples=30)
    found = [load_bundle(folder, ref, model, seed=4, stream_bytes=bound).train for bound in (2**31, 1000)]

    memory, streamed = (together(split, 7, None) for split in found)

    assert isinstance(found[1], StreamedSplit)
    assert len(memory) == len(streamed) == 30
    assert torch.equal(memory.inputs["pixel_values"], streamed.inputs["pixel_values"])


def test_more_at_once_than_memory_is_allowed_is_refused(folder: Path, model: LoadedModel):
    streamed = load_bundle(folder, REF, model, seed=0, stream_bytes=1000).train
    assert isinstance(streamed, StreamedSplit)
    streamed.max_taken = 5000

    with pytest.raises(DataError, match="90 images at once would take"):
        streamed.first(SAMPLES)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_damaged_image_ends_a_stream_with_its_row(tmp_path: Path, model: LoadedModel, kind: str):
    images, classes = tiny.images(20, seed=1)
    encoded = [tiny.png(image) for image in images]
    encoded[13] = encoded[13][:40]
    few = [{"bytes": one, "path": None} for one in encoded]
    if kind == "parquet":
        tiny.write_parquet(tmp_path / "train.parquet", image=few, label=classes)
        tiny.write_parquet(tmp_path / "validation.parquet", image=few[:2], label=classes[:2])
    else:
        members = [(f"{row}.png", one) for row, one in enumerate(encoded)]
        labelled = [(f"{row}.cls", str(label).encode()) for row, label in enumerate(classes)]
        pairs = [member for pair in zip(members, labelled, strict=True) for member in pair]
        image_shards.write_tar(tmp_path / "train.tar", pairs)
        image_shards.write_tar(tmp_path / "validation.tar", pairs[:4])
    train = load_bundle(tmp_path, REF, model, seed=0, stream_bytes=100).train
    named = "row 13 is not" if kind == "parquet" else r"row 13 \(train\.tar: 13\.png\) is not"

    with pytest.raises(DataError, match=named):
        list(train.batches(4, None))
