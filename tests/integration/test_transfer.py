"""Pulling folders from a real S3 server."""

import base64
import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import MiB, Settings
from service.store.blobs import Blob, Blobs
from tests.forwarder import Forwarder, certificate
from workers.checksums import Stated, stated
from workers.errors import StorageError
from workers.transfer import DATA_FILES, MODEL_FILES, look_at, pull, pull_folder, wanted

PART = 8 * MiB  # boto3's own part size


class Heard:
    """Listens to a pull."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))


def upload(blobs: Blobs, key: str, data: bytes) -> None:
    """As boto3's users do: in parts of 8 MiB."""
    blobs.client.upload_fileobj(io.BytesIO(data), blobs.bucket, key)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return os.urandom(PART) + os.urandom(PART) + os.urandom(3 * MiB + 5)


@pytest.fixture
def zoo(blobs: Blobs, weights: bytes) -> str:
    """A model of three parts, its config, and a neighbour whose name begins the same."""
    blobs.put_bytes("zoo/resnet/config.json", b'{"model_type": "resnet"}')
    upload(blobs, "zoo/resnet/model.safetensors", weights)
    blobs.put_bytes("zoo/resnet-2/config.json", b"{}")
    return f"s3://{blobs.bucket}/zoo/resnet/"


def test_brings_the_model_whole(blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path):
    pulled = pull_folder(blobs, zoo, tmp_path / "to", allow=MODEL_FILES, on_bytes=Heard())

    assert [file.name for file in pulled.files] == ["config.json", "model.safetensors"]
    assert (tmp_path / "to/model.safetensors").read_bytes() == weights
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["config.json", "model.safetensors"]


def test_leaves_what_nobody_asked_for_and_names_it(blobs: Blobs, zoo: str, tmp_path: Path):
    for name in ("pytorch_model.bin", "tokenizer.pkl", "modeling.py", "data/model.safetensors"):
        blobs.put_bytes(f"zoo/resnet/{name}", b"code")

    pulled = pull_folder(blobs, zoo, tmp_path / "to", allow=MODEL_FILES, on_bytes=Heard())

    assert pulled.skipped == ("data/model.safetensors", "modeling.py", "pytorch_model.bin", "tokenizer.pkl")
    assert not (tmp_path / "to/data").exists()


def test_brings_data_from_the_sub_folder_too(blobs: Blobs, tmp_path: Path):
    blobs.put_bytes("set/data/train-00000.parquet", b"rows")
    blobs.put_bytes("set/validation.npz", b"arrays")
    blobs.put_bytes("set/README.md", b"")

    pulled = pull_folder(blobs, f"s3://{blobs.bucket}/set", tmp_path, allow=DATA_FILES, on_bytes=Heard())

    assert [file.name for file in pulled.files] == ["data/train-00000.parquet", "validation.npz"]
    assert (tmp_path / "data/train-00000.parquet").read_bytes() == b"rows"


def test_an_empty_file_arrives_empty(blobs: Blobs, tmp_path: Path):
    blobs.put_bytes("m/merges.txt", b"")

    pull_folder(blobs, f"s3://{blobs.bucket}/m/", tmp_path, allow=MODEL_FILES, on_bytes=Heard())

    assert (tmp_path / "merges.txt").read_bytes() == b""


def test_a_folder_with_nothing_wanted_is_not_an_error_here(blobs: Blobs, tmp_path: Path):
    blobs.put_bytes("m/pytorch_model.bin", b"x")

    pulled = pull_folder(blobs, f"s3://{blobs.bucket}/m/", tmp_path, allow=MODEL_FILES, on_bytes=Heard())

    assert (pulled.files, pulled.skipped) == ((), ("pytorch_model.bin",))


def test_tells_how_far_it_is(blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path):
    heard = Heard()

    pull_folder(blobs, zoo, tmp_path / "to", allow=MODEL_FILES, on_bytes=heard)

    total = len(weights) + 24
    assert heard.calls[-1] == (total, total)
    assert [done for done, _ in heard.calls] == sorted(done for done, _ in heard.calls)


def test_goes_on_where_it_was_stopped(blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path):
    source = look_at(blobs, zoo, ["*.safetensors"])

    def stop_in_the_third_part(done: int, total: int) -> None:
        if done > 2 * PART + MiB:
            raise InterruptedError("drain")

    with pytest.raises(InterruptedError):
        pull(blobs, source, tmp_path, on_bytes=stop_in_the_third_part, threads=1, range_bytes=PART)
    heard = Heard()
    pull(blobs, source, tmp_path, on_bytes=heard, threads=1, range_bytes=PART)

    assert heard.calls[0][0] == 2 * PART
    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_begins_again_when_the_object_is_another_one_than_before(
    blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path
):
    source = look_at(blobs, zoo, ["*.safetensors"])

    def stop(done: int, total: int) -> None:
        if done > PART:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pull(blobs, source, tmp_path, on_bytes=stop, threads=1, range_bytes=PART)
    upload(blobs, "zoo/resnet/model.safetensors", weights[::-1])
    pull_folder(blobs, zoo, tmp_path, allow=["*.safetensors"], on_bytes=Heard())

    assert (tmp_path / "model.safetensors").read_bytes() == weights[::-1]


def overwriting(blobs: Blobs, versions: Iterator[bytes]):
    """A listener that puts the next version in place at the first bytes of each attempt."""
    last = [-1]

    def listen(done: int, total: int) -> None:
        if done > 0 and last[0] <= 0:
            data = next(versions, None)
            if data is not None:
                upload(blobs, "zoo/resnet/model.safetensors", data)
        last[0] = done

    return listen


def test_a_file_that_changes_while_it_is_read_is_read_again(
    blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path
):
    source = look_at(blobs, zoo, ["*.safetensors"])
    listen = overwriting(blobs, iter([weights[::-1]]))

    pulled = pull(blobs, source, tmp_path, on_bytes=listen, threads=1, range_bytes=PART)

    assert (tmp_path / "model.safetensors").read_bytes() == weights[::-1]
    assert pulled.files[0].etag != source.files["model.safetensors"].etag


def test_a_file_that_keeps_changing_fails_the_pull(blobs: Blobs, zoo: str, weights: bytes, tmp_path: Path):
    source = look_at(blobs, zoo, ["*.safetensors"])
    listen = overwriting(blobs, iter([weights[::-1], weights[1:] + b"x"]))

    with pytest.raises(StorageError, match=r"model\.safetensors changes while it is read, twice: upload it"):
        pull(blobs, source, tmp_path, on_bytes=listen, threads=1, range_bytes=PART)

    assert list(tmp_path.glob("model*")) == []


def test_wrong_bytes_never_get_the_name(blobs: Blobs, s3_settings: Settings, tmp_path: Path):
    quiet = Blobs.connect(s3_settings.model_copy(update={"s3_checksums": "when_required"}))
    quiet.client.put_object(
        Bucket=blobs.bucket, Key="m/model.safetensors", Body=b"weights", Metadata={"sha256": "0" * 64}
    )

    with pytest.raises(StorageError, match=r"model\.safetensors does not match the checksum .*, twice"):
        pull_folder(blobs, f"s3://{blobs.bucket}/m/", tmp_path, allow=MODEL_FILES, on_bytes=Heard())

    assert list(tmp_path.iterdir()) == []


def test_finds_the_strongest_check_that_s3_offers(blobs: Blobs, s3_settings: Settings, zoo: str):
    quiet = Blobs.connect(s3_settings.model_copy(update={"s3_checksums": "when_required"}))
    sha256 = hashlib.sha256(b"1").hexdigest()
    crc32 = base64.b64encode(zlib.crc32(b"1").to_bytes(4, "big")).decode()
    blobs.put_bytes("crc32", b"1")
    quiet.client.put_object(Bucket=blobs.bucket, Key="sha256", Body=b"1", ChecksumAlgorithm="SHA256")
    quiet.client.put_object(Bucket=blobs.bucket, Key="stated", Body=b"1", Metadata={"sha256": sha256})
    quiet.client.put_object(Bucket=blobs.bucket, Key="md5", Body=b"1")
    found = {blob.key: stated(blobs, blob) for blob in blobs.list("")}

    assert found["crc32"] == Stated("crc32", crc32)
    assert found["sha256"] == Stated("sha256", sha256)
    assert found["stated"] == Stated("sha256", sha256, 0, sha256)
    assert found["md5"] == Stated("md5", hashlib.md5(b"1").hexdigest())
    assert found["zoo/resnet/model.safetensors"].kind == "crc32_parts"
    assert found["zoo/resnet/model.safetensors"].part_bytes == PART


@pytest.mark.parametrize("kind", ["crc32", "sha256", "md5", "crc32_parts"])
def test_each_check_tells_right_from_wrong(blobs: Blobs, tmp_path: Path, kind: str):
    data = os.urandom(PART) + b"the rest"
    path = tmp_path / "file"
    path.write_bytes(data)
    value = {
        "crc32": base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
    }
    upload(blobs, "parts", data)
    parts = stated(blobs, next(blobs.list("parts")))
    check = parts if kind == "crc32_parts" else Stated(kind, value[kind])

    assert check.agrees(path)
    path.write_bytes(data[:-1] + b"?")
    assert not check.agrees(path)


def test_the_hash_that_the_uploader_stated_is_passed_on(blobs: Blobs, tmp_path: Path):
    (tmp_path / "config.json").write_bytes(b"{}")
    uploaded = blobs.upload_file(tmp_path / "config.json", "m/config.json")

    pulled = pull_folder(
        blobs, f"s3://{blobs.bucket}/m/", tmp_path / "to", allow=MODEL_FILES, on_bytes=Heard()
    )

    assert pulled.files[0].sha256 == uploaded.sha256


@pytest.mark.parametrize(
    "name",
    [
        "../config.json",
        "/config.json",
        "a//config.json",
        "./config.json",
        "..",
        "a\\config.json",
        "",
        "c\0.npz",
    ],
)
def test_a_name_that_is_no_plain_path_is_never_wanted(name: str):
    assert not wanted(name, ["*", "*/*", "*/*/*", "config.json"])


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.txt"],
)
def test_the_files_of_the_hub_layout_are_wanted(name: str):
    assert wanted(name, MODEL_FILES)
    assert not wanted(f"sub/{name}", MODEL_FILES)


def test_a_connection_that_breaks_goes_on_where_it_broke(
    blobs: Blobs, s3_settings: Settings, zoo: str, weights: bytes, tmp_path: Path
):
    with Forwarder(str(s3_settings.s3_endpoint_url), breaks=3, cut_after=5 * MiB).running() as between:
        far = Blobs.connect(
            s3_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{between.port}"})
        )
        heard = Heard()
        pull_folder(far, zoo, tmp_path, allow=["*.safetensors"], on_bytes=heard, threads=1)

    assert (tmp_path / "model.safetensors").read_bytes() == weights
    assert [done for done, _ in heard.calls] == sorted(done for done, _ in heard.calls)
    assert between.answered < len(weights) + 3 * MiB


def test_reads_through_tls_with_the_ca_that_botocore_is_told(
    s3_settings: Settings, zoo: str, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cert, context = certificate(tmp_path)
    with Forwarder(str(s3_settings.s3_endpoint_url), tls=context).running() as between:
        settings = s3_settings.model_copy(update={"s3_endpoint_url": f"https://127.0.0.1:{between.port}"})
        with pytest.raises(StorageError, match="CERTIFICATE_VERIFY_FAILED"):
            pull_folder(Blobs.connect(settings), zoo, tmp_path, allow=MODEL_FILES, on_bytes=Heard())
        monkeypatch.setenv("AWS_CA_BUNDLE", str(cert))
        pull_folder(Blobs.connect(settings), zoo, tmp_path, allow=MODEL_FILES, on_bytes=Heard())

    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_reads_through_the_proxy_that_the_environment_names(
    s3_settings: Settings, zoo: str, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with Forwarder(str(s3_settings.s3_endpoint_url)).running() as between:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{between.port}")
        monkeypatch.setenv("no_proxy", "")
        settings = s3_settings.model_copy(update={"s3_endpoint_url": "http://s3.invalid"})
        pull_folder(Blobs.connect(settings), zoo, tmp_path, allow=MODEL_FILES, on_bytes=Heard())

    assert (tmp_path / "model.safetensors").read_bytes() == weights


def test_a_prefix_with_nothing_under_it_names_itself(blobs: Blobs):
    with pytest.raises(StorageError, match=rf"s3://{blobs.bucket}/zoo/none/ holds no files; check"):
        look_at(blobs, f"s3://{blobs.bucket}/zoo/none/", MODEL_FILES)


def test_a_missing_bucket_names_itself(blobs: Blobs):
    with pytest.raises(StorageError, match="there is no bucket 'no-such-bucket'"):
        look_at(blobs, "s3://no-such-bucket/zoo/", MODEL_FILES)


def test_an_object_that_is_gone_since_the_listing_names_itself(blobs: Blobs, zoo: str, tmp_path: Path):
    source = look_at(blobs, zoo, MODEL_FILES)
    source.files["vocab.txt"] = Blob("zoo/resnet/vocab.txt", 3, "0" * 32)

    with pytest.raises(StorageError, match=r"zoo/resnet/vocab\.txt does not exist"):
        pull(blobs, source, tmp_path, on_bytes=Heard())
