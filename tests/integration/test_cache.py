"""The worker's cache, with real S3, real files and real processes."""

import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from service.settings import Settings
from service.store.blobs import Blobs
from workers.cache import Cache
from workers.errors import StorageError
from workers.transfer import MODEL_FILES

KiB = 1024
SPAWN = multiprocessing.get_context("spawn")  # a forked child would share botocore's connections


def nobody(done: int, total: int) -> None:
    """Listens to no progress."""


@pytest.fixture
def cache(blobs: Blobs, tmp_path: Path) -> Cache:
    return Cache(blobs, tmp_path / "cache", 100 * KiB)


def put_model(blobs: Blobs, name: str, size: int = 40 * KiB) -> str:
    blobs.put_bytes(f"zoo/{name}/model.safetensors", os.urandom(size))
    return f"s3://{blobs.bucket}/zoo/{name}/"


def use(cache: Cache, uri: str) -> bool:
    """Use it for a moment; whether it was there already."""
    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        assert (entry.path / "model.safetensors").exists()
        return entry.hit


def bytes_on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*.safetensors*"))


def test_the_second_time_nothing_is_downloaded(cache: Cache, blobs: Blobs):
    uri = put_model(blobs, "a")
    heard = []

    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        first = (entry.path / "model.safetensors").read_bytes()
    with cache.folder(uri, allow=MODEL_FILES, on_bytes=lambda done, total: heard.append(done)) as entry:
        again = (entry.path / "model.safetensors").read_bytes()

    assert entry.hit
    assert heard == []
    assert first == again == blobs.get_bytes("zoo/a/model.safetensors")


def test_a_changed_model_is_another_entry(cache: Cache, blobs: Blobs):
    uri = put_model(blobs, "a")
    use(cache, uri)
    put_model(blobs, "a")

    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        assert not entry.hit
        assert (entry.path / "model.safetensors").read_bytes() == blobs.get_bytes("zoo/a/model.safetensors")


def test_names_what_stayed_in_s3(cache: Cache, blobs: Blobs):
    uri = put_model(blobs, "a")
    blobs.put_bytes("zoo/a/pytorch_model.bin", b"pickle")

    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        assert entry.skipped == ("pytorch_model.bin",)


def test_what_was_used_longest_ago_goes_first(cache: Cache, blobs: Blobs, tmp_path: Path):
    old, kept, new = (put_model(blobs, name) for name in ("old", "kept", "new"))
    use(cache, kept)
    use(cache, old)
    time.sleep(0.02)
    use(cache, kept)

    use(cache, new)

    assert bytes_on_disk(tmp_path / "cache") == 80 * KiB
    assert use(cache, kept)
    assert not use(cache, old)


def test_what_is_in_use_stays(cache: Cache, blobs: Blobs):
    first, second, third = (put_model(blobs, name) for name in "abc")

    with cache.folder(first, allow=MODEL_FILES, on_bytes=nobody) as entry:
        use(cache, second)
        use(cache, third)

        assert (entry.path / "model.safetensors").stat().st_size == 40 * KiB
    assert use(cache, first)
    assert not use(cache, second)


def test_no_room_beside_what_is_in_use_says_which_setting_to_raise(cache: Cache, blobs: Blobs):
    first, second, third = (put_model(blobs, name) for name in "abc")

    with (
        cache.folder(first, allow=MODEL_FILES, on_bytes=nobody),
        cache.folder(second, allow=MODEL_FILES, on_bytes=nobody),
        pytest.raises(StorageError, match=r"all the rest is in use; raise SECATEUR_CACHE_BYTES"),
    ):
        use(cache, third)


def test_a_model_larger_than_the_cache_is_refused_before_it_is_downloaded(
    cache: Cache, blobs: Blobs, tmp_path: Path
):
    uri = put_model(blobs, "huge", 101 * KiB)

    with pytest.raises(StorageError, match=r"does not fit .*: raise SECATEUR_CACHE_BYTES"):
        use(cache, uri)

    assert bytes_on_disk(tmp_path / "cache") == 0


@pytest.mark.parametrize("damage", ["cut", "written", "gone", "marker"])
def test_a_corrupt_entry_is_downloaded_again(cache: Cache, blobs: Blobs, tmp_path: Path, damage: str):
    uri = put_model(blobs, "a")
    use(cache, uri)
    (path,) = (tmp_path / "cache").glob("*/files/model.safetensors")
    good = path.read_bytes()
    if damage == "cut":
        os.truncate(path, 100)
    elif damage == "written":
        path.write_bytes(b"\0" * len(good))
    elif damage == "gone":
        path.unlink()
    else:
        (path.parents[1] / "complete.json").write_text("{")

    with cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody) as entry:
        assert not entry.hit
        assert (entry.path / "model.safetensors").read_bytes() == good


def test_errors_of_the_user_are_not_the_caches(cache: Cache, blobs: Blobs):
    uri = put_model(blobs, "a")

    with (
        pytest.raises(OSError, match="No space left"),
        cache.folder(uri, allow=MODEL_FILES, on_bytes=nobody),
    ):
        raise OSError(28, "No space left")


def test_a_cache_that_cannot_be_written_says_which_setting_to_correct(blobs: Blobs, tmp_path: Path):
    uri = put_model(blobs, "a")
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(blobs, tmp_path / "file" / "cache", 100 * KiB)

    with pytest.raises(StorageError, match="correct SECATEUR_CACHE_DIR"):
        use(cache, uri)


def hold(settings: Settings, uri: str, limit: int, seconds: float, pipe: Connection) -> None:
    """In another process: use the folder for a while, and tell whether its bytes were whole all the time."""
    cache = Cache(Blobs.connect(settings), settings.cache_dir, limit)
    heard: list[int] = []
    with cache.folder(uri, allow=MODEL_FILES, on_bytes=lambda done, total: heard.append(done)) as entry:
        path = entry.path / "model.safetensors"
        before = path.read_bytes()
        pipe.send("holding")
        time.sleep(seconds)
        same = path.read_bytes() == before
    pipe.send((same, any(done > 0 for done in heard)))


def in_processes(settings: Settings, uris: list[str], limit: int, seconds: float) -> list[tuple[bool, bool]]:
    pipes = [SPAWN.Pipe() for _ in uris]
    started = [
        SPAWN.Process(target=hold, args=(settings, uri, limit, seconds, pipe[1]))
        for uri, pipe in zip(uris, pipes, strict=True)
    ]
    for process in started:
        process.start()
    results = []
    for near, _ in pipes:
        assert near.poll(60)
        assert near.recv() == "holding"
        results.append(near.recv())
    for process in started:
        process.join()
        assert process.exitcode == 0
    return results


def test_workers_that_want_the_same_model_download_it_once(s3_settings: Settings, blobs: Blobs):
    uri = put_model(blobs, "a", 400 * KiB)

    results = in_processes(s3_settings, [uri] * 3, 1000 * KiB, 0.2)

    assert [same for same, _ in results] == [True] * 3
    assert [downloaded for _, downloaded in results].count(True) == 1


def test_another_process_cannot_evict_what_this_one_uses(s3_settings: Settings, blobs: Blobs):
    cache = Cache.of(s3_settings.model_copy(update={"cache_bytes": 100 * KiB}), blobs)
    mine, theirs = put_model(blobs, "mine"), [put_model(blobs, name) for name in ("x", "y", "z")]

    with cache.folder(mine, allow=MODEL_FILES, on_bytes=nobody) as entry:
        before = (entry.path / "model.safetensors").read_bytes()
        for uri in theirs:
            assert in_processes(s3_settings, [uri], 100 * KiB, 0.0) == [(True, True)]

        assert (entry.path / "model.safetensors").read_bytes() == before
    assert bytes_on_disk(s3_settings.cache_dir) == 80 * KiB


def test_waiting_for_another_download_can_be_stopped(s3_settings: Settings, blobs: Blobs):
    uri = put_model(blobs, "a")
    cache = Cache.of(s3_settings, blobs)

    def stop(done: int, total: int) -> None:
        raise InterruptedError("drain")

    def ask_again(done: int, total: int) -> None:
        with pytest.raises(InterruptedError), cache.folder(uri, allow=MODEL_FILES, on_bytes=stop):
            pass
        asked.append(done)

    asked: list[int] = []
    with cache.folder(uri, allow=MODEL_FILES, on_bytes=ask_again):
        pass

    assert asked
