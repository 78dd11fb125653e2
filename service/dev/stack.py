"""The whole service on one machine: Redis, S3, api, steward and workers, for laptops, tests and the demo."""

import fcntl
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import boto3
import httpx
from botocore.exceptions import ClientError

from service.cli.connection import CLIENT_FILE, Connection, read_client_file, write_client_file
from service.dev.credentials import S3Credentials, keep_credentials, kept_credentials
from service.dev.process import Server, ServerError, free_ports, start
from service.dev.seaweedfs import start_seaweedfs
from service.dev.supervision import Part, Say, Supervision
from service.dev.valkey import start_valkey
from service.dev.watchdog import Watchdog
from service.settings import Settings
from service.store.api_keys import ApiKeys
from service.store.blobs import client as s3_client
from service.store.blobs import explained
from service.store.connect import connect
from service.store.workers import Workers

ZOO, DATA = "zoo", "data"
TENANT = "default"
_READY_S = 90.0


class Stack:
    """A context: inside it the service runs at `url`, afterwards nothing of it is left.

    A Redis or S3 server that the settings name (REDIS_URL, S3_ENDPOINT_URL) is used instead of our own.
    """

    url: str
    key: str

    def __init__(
        self,
        folder: Path,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        allow: Sequence[str] = (),
        say: Say = lambda _: None,
    ) -> None:
        """`env` goes to the processes on top of ours; `port` 0: any free one; `allow`: more S3 prefixes."""
        self.folder = folder.resolve()
        self._workers = workers
        self._extra_env = dict(env or {})
        self._port = port
        self._allow = (f"s3://{ZOO}/", f"s3://{DATA}/", *allow)
        self._settings = Settings()
        self.redis_url = self._settings.redis_url
        self.s3_endpoint = self._settings.s3_endpoint_url or ""
        self.credentials: S3Credentials | None = None
        self._supervision = Supervision(say)
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        """Returns once the API answers and the workers are registered. Raises ServerError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._lock()
            self._start_servers()
            self.key = self._api_key()
            self._start_service()
        except BaseException:
            self.stop()
            raise
        self._supervision.watch()
        return self

    def stop(self) -> None:
        """Stop everything, workers first, storage last; twice is harmless."""
        self._supervision.stop()
        self._held.close()

    def pid(self, name: str) -> int:
        """Of `api`, `steward`, `worker`, `worker-2`, … `seaweedfs`, `valkey`."""
        part = next(part for part in self._supervision.parts if part.name == name)
        assert part.server is not None
        return part.server.process.pid

    def s3(self) -> Any:
        """A boto3 client of the stack's S3, with the credentials that belong to it."""
        if self.credentials is None:
            return s3_client(self._settings)
        return boto3.client(
            "s3",
            endpoint_url=self.s3_endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.credentials.access_key,
            aws_secret_access_key=self.credentials.secret_key,
        )

    def _lock(self) -> None:
        """One stack in a folder, and a watchdog for the case that we are killed. Raises ServerError."""
        lock = self._held.enter_context((self.folder / "stack.lock").open("a+"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ServerError(
                f"Secateur runs already in {self.folder}, as process {lock.read().strip() or '?'}: "
                "use that one, stop it, or choose another folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._held.callback(Watchdog(self.folder).close)

    def _start_servers(self) -> None:
        """Redis and S3, unless the settings name them, and the buckets."""
        named = self._settings.model_fields_set
        parts = []
        if "redis_url" not in named:
            parts.append(Part("valkey", self._valkey))
        if "s3_endpoint_url" not in named:
            self.credentials = kept_credentials(self.folder / "s3.env")
            parts.append(Part("seaweedfs", partial(self._seaweedfs, self.credentials)))
        if parts:
            self._supervision.start_all(parts)
        if self.credentials is not None:
            keep_credentials(self.folder / "s3.env", self.credentials, self.s3_endpoint)
        else:
            self._create_buckets()

    def _valkey(self) -> Server:
        server = start_valkey(self.folder / "valkey")
        self._link_log(server)
        if server.url != self.redis_url and self._supervision.is_watching:
            self._supervision.end("api", "steward", "worker")  # a new socket: they start again and learn it
        self.redis_url = server.url
        return server

    def _seaweedfs(self, credentials: S3Credentials) -> Server:
        folder = self.folder / "seaweedfs"
        port = httpx.URL(self.s3_endpoint).port or 0 if self._supervision.is_watching else 0
        server = start_seaweedfs(
            folder, credentials.access_key, credentials.secret_key, self._buckets, port=port
        )
        self._link_log(server)
        self.s3_endpoint = server.url
        return server

    @property
    def _buckets(self) -> list[str]:
        return list(dict.fromkeys((self._settings.bucket, ZOO, DATA)))

    def _create_buckets(self) -> None:
        """On a server that is not ours. Raises BlobError."""
        client = s3_client(self._settings)
        for name in self._buckets:
            with explained(name, ""):
                try:
                    client.head_bucket(Bucket=name)
                except ClientError as error:
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                        raise
                    client.create_bucket(Bucket=name)

    def _api_key(self) -> str:
        """The key of the last run if it still fits, else a new one."""
        redis = connect(self.redis_url)
        keys = ApiKeys(redis)
        file = self.folder / CLIENT_FILE.name
        known = read_client_file(file).key if file.is_file() else None
        owner = keys.find(known) if known else None
        if known and owner and (owner.tenant, owner.prefixes) == (TENANT, self._allow):
            return known
        if owner is not None:
            keys.revoke(owner.key_id)
        return keys.create(TENANT, name="secateur dev", prefixes=self._allow)

    def _start_service(self) -> None:
        ports = free_ports(self._workers + 2)
        port = self._port or ports[0]
        host = self._settings.api_host
        self.url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104
        api = [sys.executable, "-m", "service.cli.main", "api", "--host", host, "--port", str(port)]
        steward = [sys.executable, "-m", "service.steward"]
        worker = [sys.executable, "-m", "workers"]
        names = [f"worker-{number}" if number > 1 else "worker" for number in range(1, self._workers + 1)]
        parts = [
            self._part("api", api, f"{self.url}/healthz", {}),
            self._metered("steward", steward, ports[1]),
            *(self._metered(name, worker, free) for name, free in zip(names, ports[2:], strict=True)),
        ]
        self._supervision.start_all(parts)
        self._wait_for_workers()
        write_client_file(self.folder / CLIENT_FILE.name, Connection(self.url, self.key))

    def _metered(self, name: str, command: list[str], port: int) -> Part:
        """A process that shows by its metrics that it is there."""
        variable = f"SECATEUR_{'STEWARD' if name == 'steward' else 'WORKER'}_METRICS_PORT"
        return self._part(name, command, f"http://127.0.0.1:{port}/metrics", {variable: str(port)})

    def _part(self, name: str, command: list[str], probe: str, env: Mapping[str, str]) -> Part:
        def begin() -> Server:
            ready = self._supervision.ready_or_stopping(partial(_answers, probe))
            server = start(
                name,
                command,
                folder=self.folder / name,
                url=probe,
                ready=ready,
                env={**self._env(), **env, **self._extra_env},
                timeout_s=_READY_S,
            )
            self._link_log(server)
            return server

        return Part(name, begin)

    def _env(self) -> dict[str, str]:
        """What our processes must know of each other; the rest is in the environment already."""
        own = {
            "SECATEUR_REDIS_URL": self.redis_url,
            "SECATEUR_S3_ENDPOINT_URL": self.s3_endpoint,
            "SECATEUR_METRICS_HOST": "127.0.0.1",
        }
        if "cache_dir" not in self._settings.model_fields_set:
            own["SECATEUR_CACHE_DIR"] = str(self.folder / "cache")
        return own | (self.credentials.env() if self.credentials else {})

    def _wait_for_workers(self) -> None:
        workers = Workers(connect(self.redis_url))
        deadline = time.monotonic() + _READY_S
        while len(workers.living()) < self._workers:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the worker did not register within {_READY_S:.0f} s: see {self.folder / 'logs'}"
                )
            time.sleep(0.1)

    def _link_log(self, server: Server) -> None:
        """All logs in one folder, where people look for them."""
        link = self.folder / "logs" / server.log.name
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(server.log, link.parent))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).is_success
    except httpx.TransportError:
        return False
