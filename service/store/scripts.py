"""The Lua scripts: the only way in which the state of a job changes."""

from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import ConnectionError, ResponseError

PREFIX = "{secateur}:"
"""Every key begins with it; as a hash tag it keeps all keys in one slot of a Redis Cluster."""

_NO_WRITES = (
    "MISCONF",
    "NOREPLICAS",
    "READONLY",
    "OOM",
    "command not allowed when used memory",
    "CLUSTERDOWN",
)
"""Disk or memory full, or a replica: all of them pass."""

_LUA = files("service.store") / "lua"


class Scripts:
    """Calls a script by its file name. The connection must decode its answers."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._prefix = prefix
        prelude = (_LUA / "prelude.lua").read_text()
        names = [path.name.removesuffix(".lua") for path in _LUA.iterdir() if path.name.endswith(".lua")]
        self._scripts = {
            name: redis.register_script(prelude + (_LUA / f"{name}.lua").read_text())
            for name in names
            if name != "prelude"
        }

    def call(self, name: str, *args: str | int | float) -> Any:
        """Run one script and return its answer. A server that takes no writes now counts as away."""
        try:
            return self._scripts[name](keys=[self._prefix], args=args)
        except ResponseError as error:
            if str(error).startswith(_NO_WRITES):
                raise ConnectionError(f"Redis takes no writes: {error}") from error
            raise
