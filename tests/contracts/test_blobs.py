"""What Blobs promises, on a real S3 server."""

import hashlib
import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.dev.process import free_ports
from service.settings import Settings
from service.store.blobs import (
    BlobConflict,
    BlobError,
    BlobForbidden,
    BlobNotFound,
    Blobs,
    BlobUnavailable,
    Location,
    media_type,
    parse_uri,
)
from tests.servers import S3


def test_gives_back_the_bytes_it_was_given(blobs: Blobs):
    blobs.put_bytes("jobs/a/model.bin", b"\x00\xff" * 100)

    assert blobs.get_bytes("jobs/a/model.bin") == b"\x00\xff" * 100


def test_writes_json_that_others_can_read(blobs: Blobs):
    blobs.put_json("spec.json", {"goal": {"sparsity": 0.8}, "tags": ["über"]})

    assert json.loads(blobs.get_bytes("spec.json")) == {"goal": {"sparsity": 0.8}, "tags": ["über"]}
    assert blobs.head("spec.json")["ContentType"] == "application/json"


def test_refuses_json_that_is_not_a_number(blobs: Blobs):
    with pytest.raises(ValueError, match="not JSON compliant"):
        blobs.put_json("spec.json", {"loss": float("nan")})


def test_if_absent_leaves_the_first_value(blobs: Blobs):
    blobs.put_bytes("manifest.json", b"first", if_absent=True)

    with pytest.raises(BlobConflict, match=r"manifest\.json exists already"):
        blobs.put_bytes("manifest.json", b"second", if_absent=True)

    assert blobs.get_bytes("manifest.json") == b"first"


def test_only_one_of_sixteen_writers_at_once_wins(blobs: Blobs):
    def write(number: int) -> bool:
        try:
            blobs.put_bytes("manifest.json", b"%d" % number, if_absent=True)
        except BlobConflict:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(write, range(16)))

    assert won.count(True) == 1
    assert blobs.get_bytes("manifest.json") == b"%d" % won.index(True)


def test_lists_only_what_is_under_the_prefix(blobs: Blobs):
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a"):
        blobs.put_bytes(key, key.encode())

    listed = list(blobs.list("jobs/1/"))

    assert [(blob.key, blob.bytes) for blob in listed] == [("jobs/1/a", 8), ("jobs/1/b/c", 10)]
    assert listed[0].etag == hashlib.md5(b"jobs/1/a").hexdigest()


def test_deletes_a_prefix_and_not_its_neighbour(blobs: Blobs):
    for key in ("jobs/1/a", "jobs/1/b", "jobs/10/a"):
        blobs.put_bytes(key, b"x")

    deleted = blobs.delete_prefix("jobs/1/")

    assert deleted == 2
    assert [blob.key for blob in blobs.list("")] == ["jobs/10/a"]


def test_refuses_to_delete_a_prefix_without_its_slash(blobs: Blobs):
    with pytest.raises(ValueError, match="must end in '/'"):
        blobs.delete_prefix("jobs/1")


def test_knows_what_exists(blobs: Blobs):
    blobs.put_bytes("here", b"")

    assert blobs.exists("here")
    assert not blobs.exists("there")


@pytest.mark.parametrize("size", [0, 5, 20 * 1024**2])
def test_uploads_a_file_whole_with_its_hash(blobs: Blobs, tmp_path: Path, size: int):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))

    uploaded = blobs.upload_file(path, "artifacts/model.safetensors")

    assert uploaded == (size, hashlib.sha256(path.read_bytes()).hexdigest())
    assert blobs.get_bytes("artifacts/model.safetensors") == path.read_bytes()
    assert blobs.head("artifacts/model.safetensors")["Metadata"]["sha256"] == uploaded.sha256


def test_a_large_upload_goes_in_parts_that_the_server_checked(blobs: Blobs, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"w" * 20 * 1024**2)

    blobs.upload_file(path, "model.safetensors")

    head = blobs.head("model.safetensors")
    assert head["ETag"].endswith('-2"')
    assert head["ChecksumCRC32"]


def test_a_link_downloads_under_a_safe_name_without_credentials(blobs: Blobs):
    blobs.put_bytes("jobs/1/artifacts/model.onnx", b"onnx")

    link = blobs.presign_get("jobs/1/artifacts/model.onnx", 'a"b\r\n.onnx', 60)

    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"onnx"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a_b__.onnx"'


def test_a_link_opens_no_other_object(blobs: Blobs):
    blobs.put_bytes("mine", b"1")
    blobs.put_bytes("other", b"2")

    link = blobs.presign_get("mine", "mine", 60).replace("/mine?", "/other?")

    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link)


def test_a_link_uses_the_address_that_users_can_reach(s3_settings: Settings):
    settings = s3_settings.model_copy(update={"s3_public_url": "https://s3.example.org"})

    link = Blobs.connect(settings).presign_get("a/b", "b", 60)

    assert link.startswith(f"https://s3.example.org/{settings.bucket}/a/b?")


def test_a_missing_key_names_itself(blobs: Blobs):
    with pytest.raises(BlobNotFound, match=r"s3://test-\w+/no/such\.json does not exist"):
        blobs.get_bytes("no/such.json")


@pytest.mark.parametrize("call", ["get", "put", "list", "upload"])
def test_a_missing_bucket_names_itself(blobs: Blobs, tmp_path: Path, call: str):
    other = blobs.of("no-such-bucket")
    (tmp_path / "file").write_bytes(b"x")
    calls = {
        "get": lambda: other.get_bytes("a"),
        "put": lambda: other.put_bytes("a", b""),
        "list": lambda: list(other.list("a/")),
        "upload": lambda: other.upload_file(tmp_path / "file", "a"),
    }

    with pytest.raises(BlobNotFound, match="there is no bucket 'no-such-bucket'; create it"):
        calls[call]()


def test_wrong_credentials_are_forbidden(s3: S3, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")

    with pytest.raises(BlobForbidden, match=r"access denied \(\w+\); give these S3 credentials"):
        Blobs.connect(s3_settings).get_bytes("a")


def test_no_credentials_say_which_variables_to_set(
    s3: S3, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))

    with pytest.raises(BlobForbidden, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Blobs.connect(s3_settings).get_bytes("a")


def test_a_closed_port_is_unavailable(s3_settings: Settings):
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    settings = s3_settings.model_copy(update={"s3_endpoint_url": closed})

    with pytest.raises(BlobUnavailable, match=r"S3 does not answer .*check SECATEUR_S3_ENDPOINT_URL"):
        Blobs.connect(settings).get_bytes("a")


def test_an_impossible_bucket_name_is_an_error_of_the_tree(blobs: Blobs):
    with pytest.raises(BlobError, match="Invalid bucket name"):
        blobs.of("not a bucket").get_bytes("a")


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("s3://zoo/resnet/", Location("zoo", "resnet/")),
        ("s3://zoo/a/b", Location("zoo", "a/b")),
        ("s3://zoo", Location("zoo", "")),
    ],
)
def test_takes_a_uri_apart(uri: str, location: Location):
    assert parse_uri(uri) == location


@pytest.mark.parametrize("uri", ["zoo/resnet/", "https://zoo/resnet/", "s3:///resnet/", ""])
def test_refuses_what_is_not_an_s3_uri(uri: str):
    with pytest.raises(ValueError, match="is not an S3 URI"):
        parse_uri(uri)


def test_tells_the_media_type_by_the_suffix():
    assert media_type("report.html") == "text/html"
    assert media_type("model.safetensors") == "application/octet-stream"
