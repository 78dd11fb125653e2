"""Images a second from shards: our readers against the plain `datasets` and `webdataset` libraries.

All read the same JPEG images, crops of photographs, and give batches of uint8 [64, 3, 224, 224], decoded by
Pillow in as many processes. Epochs of all arms take turns; each has had one before, in which its processes
start. Beside it, shards in S3: after the first epoch the server is ended, and the second must still be whole.
Run: python -m tests.benchmarks.data
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from tests.benchmarks.bar import finish

IMAGES, SHARDS, BATCH, SIDE, PROCESSES, ROUNDS = 3000, 6, 64, 224, 2, 5
LIMIT = 1.0
Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Arm = Callable[[], Batches]


def photographs() -> Iterator[bytes]:
    """JPEG images of 256 x 256, crops of the sample photographs of scikit-learn."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    whole = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(IMAGES):
        source = whole[number % len(whole)]
        side = int(random.integers(180, 420))
        left = int(random.integers(source.width - side + 1))
        top = int(random.integers(source.height - side + 1))
        crop = source.crop((left, top, left + side, top + side)).resize((256, 256))
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


def write_shards(folder: Path) -> tuple[Path, Path]:
    """A folder of parquet files and one of tars; the label of an image is its number."""
    from tests import image_shards, tiny

    parquet, tars, images = folder / "parquet", folder / "tar", list(photographs())
    for shard, rows in enumerate(np.array_split(np.arange(IMAGES), SHARDS)):
        cells = [{"bytes": images[row], "path": f"{row}.jpg"} for row in rows]
        tiny.write_parquet(parquet / f"train-{shard:05}-of-{SHARDS:05}.parquet", image=cells, label=rows)
        members = [
            member
            for row in rows
            for member in ((f"{row:06}.jpg", images[row]), (f"{row:06}.cls", str(row).encode()))
        ]
        image_shards.write_tar(tars / f"train-{shard:06}.tar", members)
    few = [{"bytes": images[0], "path": "0.jpg"}]
    tiny.write_parquet(parquet / "validation.parquet", image=few, label=[0])
    image_shards.write_tar(tars / "validation.tar", [("0.jpg", images[0]), ("0.cls", b"0")])
    return parquet, tars


def decoded(encoded: bytes) -> np.ndarray:
    """What a script without us does: [3, 224, 224] uint8."""
    with Image.open(io.BytesIO(encoded)) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def of_datasets(folder: Path, scratch: Path, *, streaming: bool) -> Arm:
    """The `datasets` library as its guide has it, streaming or from its own copy on disk."""
    import datasets
    from torch.utils.data import DataLoader

    files = sorted(str(path) for path in folder.glob("train-*.parquet"))
    found: Any = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=streaming, cache_dir=str(scratch)
    )
    found = found.cast_column("image", datasets.Image(decode=False))
    if streaming:
        found = found.map(_of_row, remove_columns=["image"])
    else:
        found.set_transform(_of_rows)
    loader = DataLoader(found, batch_size=BATCH, num_workers=PROCESSES, persistent_workers=True)
    return lambda: ((batch["pixel_values"], batch["label"]) for batch in loader)


def _of_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"pixel_values": decoded(row["image"]["bytes"]), "label": row["label"]}


def _of_rows(rows: dict[str, Any]) -> dict[str, Any]:
    return {"pixel_values": [decoded(image["bytes"]) for image in rows["image"]], "label": rows["label"]}


def of_webdataset(folder: Path) -> Arm:
    """The `webdataset` library as its guide has it."""
    import webdataset

    files = sorted(str(path) for path in folder.glob("train-*.tar"))
    found = webdataset.WebDataset(files, shardshuffle=False).to_tuple("jpg", "cls")
    found = found.map_tuple(decoded, int).batched(BATCH)
    loader = webdataset.WebLoader(found, batch_size=None, num_workers=PROCESSES, persistent_workers=True)
    return lambda: ((torch.as_tensor(images), torch.as_tensor(labels)) for images, labels in loader)


def of_ours(folder: Any, model_folder: Path) -> Arm:
    """Our reader, streaming."""
    from schemas.refs import DataRef
    from schemas.task import Task
    from workers.data.load import load_bundle
    from workers.models.load import load_model

    torch.set_num_threads(PROCESSES)
    model = load_model(model_folder, Task.image_classification)
    ref = DataRef(uri="s3://bench/data/")
    train = load_bundle(folder, ref, model, seed=0, stream_bytes=0).train
    return lambda: ((batch.inputs["pixel_values"], batch.labels) for batch in train.batches(BATCH, None))


def summed(batches: Batches) -> torch.Tensor:
    """[IMAGES] the sum of the pixels of each image, by its label; -1 where it did not come."""
    sums = torch.full((IMAGES,), -1, dtype=torch.int64)
    for images, labels in batches:
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (3, SIDE, SIDE)
        assert (sums[labels] == -1).all()
        sums[labels] = images.flatten(1).sum(1)
    return sums


def compare(name: str, arms: dict[str, Arm]) -> float:
    """Ratio of the medians: ours against the faster of the others."""
    expected = summed(arms["secateur"]())
    assert (expected >= 0).all()
    for arm in arms.values():
        assert torch.equal(summed(arm()), expected)
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(ROUNDS):
        for arm in arms if number % 2 else reversed(list(arms)):
            start = time.perf_counter()
            count = sum(len(labels) for _, labels in arms[arm]())
            seconds[arm].append(time.perf_counter() - start)
            assert count == IMAGES
    speed = {arm: IMAGES / statistics.median(found) for arm, found in seconds.items()}
    for arm, found in seconds.items():
        spread = " ".join(f"{IMAGES / value:.0f}" for value in sorted(found))
        print(f"{name:8} {arm:22} {speed[arm]:6.0f} images/s  [{spread}]", flush=True)
    return speed["secateur"] / max(found for arm, found in speed.items() if arm != "secateur")


def second_epoch_without_s3(folder: Path, model_folder: Path, scratch: Path) -> None:
    """Two epochs from S3, the second one after the server has ended: every image comes both times."""
    from service.dev.seaweedfs import start_seaweedfs
    from service.settings import Settings
    from service.store.blobs import Blobs
    from workers.cache import Cache
    from workers.data.remote import RemoteFolder
    from workers.transfer import DATA_FILES, look_at

    key, secret, bucket = "bench-key", "bench-secret", "bench"
    os.environ |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    server = start_seaweedfs(scratch / "s3", key, secret, [bucket])
    fetched = 0

    def on_bytes(done: int, total: int) -> None:
        nonlocal fetched
        fetched = max(fetched, done)

    try:
        blobs = Blobs.connect(Settings(s3_endpoint_url=server.url, bucket=bucket), attempts=1)
        for path in folder.iterdir():
            blobs.upload_file(path, f"data/{path.name}")
        source = look_at(blobs, f"s3://{bucket}/data/", DATA_FILES)
        remote = RemoteFolder(Cache(blobs, scratch / "cache", 2**30), source, on_bytes)
        arm = of_ours(remote, model_folder)
        first = summed(arm())
    finally:
        server.stop()
    assert fetched > 0
    fetched = 0
    second = summed(arm())
    assert torch.equal(first, second)
    assert fetched == 0
    print(f"{folder.name:8} second epoch with S3 ended: {int((second >= 0).sum())} images, 0 bytes fetched")


def main() -> None:
    """Write the shards, compare, and end with the smaller of both ratios."""
    from tests import tiny

    with tempfile.TemporaryDirectory() as found:
        folder = Path(found)
        model = tiny.resnet(folder / "model", channels=3, num_labels=IMAGES)
        tiny.preprocessor(model, 3, size={"shortest_edge": SIDE}, resample=2)
        parquet, tars = write_shards(folder)
        print(f"{IMAGES} JPEG images, {SHARDS} shards, {PROCESSES} processes, median of {ROUNDS} epochs")
        ratios = [
            compare(
                "parquet",
                {
                    "secateur": of_ours(parquet, model),
                    "datasets, streaming": of_datasets(parquet, folder / "hf", streaming=True),
                    "datasets, from disk": of_datasets(parquet, folder / "hf", streaming=False),
                },
            ),
            compare("tar", {"secateur": of_ours(tars, model), "webdataset": of_webdataset(tars)}),
        ]
        print(f"ratios: parquet {ratios[0]:.2f}, tar {ratios[1]:.2f}")
        for shards in (parquet, tars):
            second_epoch_without_s3(shards, model, folder / f"{shards.name}-s3")
    finish("images_per_second_vs_libraries", min(ratios), LIMIT, at_least=True)


if __name__ == "__main__":
    main()
