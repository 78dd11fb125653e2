"""A pull meets what goes wrong in production: kills, full disks, wrong keys, a server that is not there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.dev.process import free_ports
from service.settings import MiB, Settings
from service.store.blobs import Blobs
from tests.forwarder import Forwarder
from workers.cache import Cache
from workers.errors import StorageError
from workers.transfer import MODEL_FILES, look_at, pull, pull_folder

PART = MiB
SIZE = 12 * PART + 17

PULLER = """
import resource, sys, time
from pathlib import Path
from service.settings import Settings
from service.store.blobs import Blobs
from workers.errors import StorageError
from workers.transfer import look_at, pull

endpoint, bucket, dest, slowly, largest = sys.argv[1:]
if int(largest):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))
blobs = Blobs.connect(Settings(s3_endpoint_url=endpoint, bucket=bucket))
source = look_at(blobs, f"s3://{bucket}/zoo/", ["*.safetensors"])

def listen(done, total):
    print(done, flush=True)
    time.sleep(float(slowly))

try:
    pull(blobs, source, Path(dest), on_bytes=listen, threads=2, range_bytes=1024**2)
except StorageError as error:
    print(f"StorageError: {error}", flush=True)
    raise SystemExit(3)
"""


def start_pull(
    settings: Settings, dest: Path, *, slowly: float = 0.0, largest: int = 0
) -> subprocess.Popen[str]:
    arguments = [str(settings.s3_endpoint_url), settings.bucket, str(dest), str(slowly), str(largest)]
    return subprocess.Popen([sys.executable, "-c", PULLER, *arguments], stdout=subprocess.PIPE, text=True)


def nobody(done: int, total: int) -> None:
    """Listens to no progress."""


@pytest.fixture
def weights(blobs: Blobs) -> bytes:
    data = os.urandom(SIZE)
    blobs.put_bytes("zoo/model.safetensors", data)
    return data


def killed_at(process: subprocess.Popen[str], enough: int) -> None:
    """SIGKILL it once it has more than `enough` bytes."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > enough:
            break
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def test_after_a_kill_only_the_rest_is_fetched(
    s3_settings: Settings, blobs: Blobs, weights: bytes, tmp_path: Path
):
    killed_at(start_pull(s3_settings, tmp_path / "to", slowly=0.02), 10 * PART)
    assert not (tmp_path / "to/model.safetensors").exists()
    source = look_at(blobs, f"s3://{blobs.bucket}/zoo/", MODEL_FILES)
    heard: list[int] = []

    with Forwarder(str(s3_settings.s3_endpoint_url)).running() as between:
        near = s3_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{between.port}"})
        pull(
            Blobs.connect(near),
            source,
            tmp_path / "to",
            on_bytes=lambda done, total: heard.append(done),
            range_bytes=PART,
        )

    assert (tmp_path / "to/model.safetensors").read_bytes() == weights
    assert heard[0] >= 8 * PART
    assert between.answered < SIZE - heard[0] + 64 * 1024


def test_a_cache_entry_left_half_by_a_kill_is_finished(
    s3_settings: Settings, blobs: Blobs, weights: bytes, tmp_path: Path
):
    cache = Cache.of(s3_settings, blobs)
    uri = f"s3://{blobs.bucket}/zoo/"
    with pytest.raises(InterruptedError), cache.folder(uri, allow=MODEL_FILES, on_bytes=interrupt):
        pass
    (half,) = s3_settings.cache_dir.glob("*/files")
    for path in half.iterdir():
        path.unlink()
    killed_at(start_pull(s3_settings, half, slowly=0.02), 10 * PART)

    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        assert not entry.hit
        assert entry.path == half
        assert (entry.path / "model.safetensors").read_bytes() == weights
        assert [path.name for path in entry.path.iterdir()] == ["model.safetensors"]


def interrupt(done: int, total: int) -> None:
    raise InterruptedError


def test_a_file_too_large_for_the_disk_is_a_storage_error_with_the_remedy(
    s3_settings: Settings, weights: bytes, tmp_path: Path
):
    process = start_pull(s3_settings, tmp_path / "to", largest=5 * PART)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "StorageError: the worker's disk is full" in output
    assert "free space under SECATEUR_CACHE_DIR" in output
    assert not (tmp_path / "to/model.safetensors").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here ({mounted.stderr.strip()}); RLIMIT_FSIZE stands in")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_found_before_anything_is_fetched(
    blobs: Blobs, weights: bytes, small_disk: Path
):
    heard: list[int] = []

    with pytest.raises(StorageError, match=r"disk is full .*12 MiB are needed, 4 MiB are free"):
        pull_folder(
            blobs,
            f"s3://{blobs.bucket}/zoo/",
            small_disk / "to",
            allow=MODEL_FILES,
            on_bytes=lambda done, total: heard.append(done),
        )

    assert heard == []


def test_a_disk_that_fills_up_meanwhile_is_a_storage_error(blobs: Blobs, small_disk: Path):
    blobs.put_bytes("zoo/model.safetensors", os.urandom(3 * MiB))

    def fill(done: int, total: int) -> None:
        if done == 0:
            (small_disk / "other").write_bytes(b"\0" * 2 * MiB)

    with pytest.raises(StorageError, match=r"disk is full .*: free space under SECATEUR_CACHE_DIR"):
        pull_folder(blobs, f"s3://{blobs.bucket}/zoo/", small_disk / "to", allow=MODEL_FILES, on_bytes=fill)

    assert not (small_disk / "to/model.safetensors").exists()


def test_wrong_credentials_are_a_storage_error(
    s3_settings: Settings, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    blobs = Blobs.connect(s3_settings)

    with pytest.raises(StorageError, match=r"access denied .*give these S3 credentials the right"):
        pull_folder(blobs, f"s3://{blobs.bucket}/zoo/", tmp_path, allow=MODEL_FILES, on_bytes=nobody)


def test_credentials_that_are_withdrawn_meanwhile_are_a_storage_error(
    s3_settings: Settings, blobs: Blobs, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = look_at(blobs, f"s3://{blobs.bucket}/zoo/", MODEL_FILES)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    signs_wrong = Blobs.connect(s3_settings)

    with pytest.raises(StorageError, match="access denied"):
        pull(signs_wrong, source, tmp_path, on_bytes=nobody)


def test_a_server_that_is_not_there_is_a_storage_error(s3_settings: Settings, tmp_path: Path):
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    blobs = Blobs.connect(s3_settings.model_copy(update={"s3_endpoint_url": closed}))

    with pytest.raises(StorageError, match=r"S3 does not answer .*check SECATEUR_S3_ENDPOINT_URL"):
        pull_folder(blobs, f"s3://{blobs.bucket}/zoo/", tmp_path, allow=MODEL_FILES, on_bytes=nobody)


def test_a_server_that_always_hangs_up_is_given_up_on(
    s3_settings: Settings, blobs: Blobs, weights: bytes, tmp_path: Path
):
    source = look_at(blobs, f"s3://{blobs.bucket}/zoo/", MODEL_FILES)
    started = time.monotonic()

    with Forwarder(str(s3_settings.s3_endpoint_url), breaks=1000, cut_after=100_000).running() as between:
        near = s3_settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{between.port}"})
        with pytest.raises(StorageError, match=r"the download broke 5 times.*check the connection to S3"):
            pull(Blobs.connect(near), source, tmp_path, on_bytes=nobody, threads=1)

    assert time.monotonic() - started < 30
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_a_pull_leaves_no_file_open(blobs: Blobs, weights: bytes, tmp_path: Path):
    pull_folder(blobs, f"s3://{blobs.bucket}/zoo/", tmp_path, allow=MODEL_FILES, on_bytes=nobody)

    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [link for link in links if str(tmp_path) in os.readlink(link)]
