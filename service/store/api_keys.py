"""API keys and tenants. A key has 256 random bits, so its SHA-256 is enough to store."""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from redis import Redis

from service.store.scripts import PREFIX


@dataclass(frozen=True)
class Principal:
    """Who asks: a tenant, and the S3 prefixes that its specs may name."""

    tenant: str
    key_id: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class KeyInfo:
    """A key without its secret."""

    id: str
    tenant: str
    name: str
    created_at: float
    prefixes: tuple[str, ...]


class ApiKeys:
    """Create, look up and revoke."""

    def __init__(self, redis: Redis, prefix: str = PREFIX) -> None:
        self._redis = redis
        self._prefix = prefix

    def create(self, tenant: str, *, name: str, prefixes: tuple[str, ...]) -> str:
        """A new key, shown this once. Its tenant may name models and data under `prefixes` (`s3://…/`)."""
        key_id = secrets.token_hex(4)
        secret = f"sct_{key_id}_{secrets.token_urlsafe(32)}"
        info = {"id": key_id, "tenant": tenant, "name": name, "created_at": time.time(), "prefixes": prefixes}
        self._redis.hset(f"{self._prefix}keys", _digest(secret), json.dumps(info))
        return secret

    def find(self, secret: str) -> Principal | None:
        """Whose key this is; None: nobody's. The look-up is by hash, so its time tells nothing of the key."""
        text = self._redis.hget(f"{self._prefix}keys", _digest(secret))
        if text is None:
            return None
        info = json.loads(text)
        return Principal(info["tenant"], info["id"], tuple(info["prefixes"]))

    def all(self) -> list[KeyInfo]:
        """All keys, oldest first."""
        infos = (json.loads(text) for text in self._redis.hgetall(f"{self._prefix}keys").values())
        keys = [KeyInfo(**{**info, "prefixes": tuple(info["prefixes"])}) for info in infos]
        return sorted(keys, key=lambda one: one.created_at)

    def revoke(self, key_id: str) -> bool:
        """Make a key useless; False: there is no such key."""
        for digest, text in self._redis.hgetall(f"{self._prefix}keys").items():
            if json.loads(text)["id"] == key_id:
                return bool(self._redis.hdel(f"{self._prefix}keys", digest))
        return False


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
