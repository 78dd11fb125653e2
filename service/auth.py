"""Who asks, and which S3 URIs that tenant's specs may name."""

import hashlib
import time

from schemas.job_spec import JobSpec
from schemas.problem import FieldError
from service.errors import PrefixNotAllowed
from service.store.api_keys import ApiKeys, Principal

ANYBODY = Principal(tenant="default", key_id="none", prefixes=("s3://",))
"""The caller where authentication is off."""

REMEMBER_S = 5.0
"""A revoked key may still be accepted for so long by each API process."""

_MOST_KEYS = 4096


class KeyRing:
    """Looks keys up in Redis and remembers for `remember_s` seconds those that it found."""

    def __init__(self, keys: ApiKeys, remember_s: float = REMEMBER_S) -> None:
        self._keys = keys
        self._remember_s = remember_s
        self._known: dict[bytes, tuple[float, Principal]] = {}

    def recall(self, secret: str) -> Principal | None:
        """The key's owner, if it was found a moment ago. Asks nobody."""
        until, principal = self._known.get(_digest(secret), (0.0, None))
        return principal if until > time.monotonic() else None

    def find(self, secret: str) -> Principal | None:
        """The key's owner, from Redis."""
        principal = self._keys.find(secret)
        if principal is not None:
            if len(self._known) >= _MOST_KEYS:
                self._known.clear()
            self._known[_digest(secret)] = (time.monotonic() + self._remember_s, principal)
        return principal


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def own_area(tenant: str, bucket: str) -> str:
    """Where this tenant's results lie; it may always prune what it made."""
    return f"s3://{bucket}/{tenant}/"


def may_read(caller: Principal, uri: str, bucket: str) -> bool:
    """Whether a spec of this caller may name `uri`.

    In the service's own `bucket` each tenant reads its own area and nothing else, whatever its key allows.
    """
    if uri.startswith(f"s3://{bucket}/"):
        return uri.startswith(own_area(caller.tenant, bucket))
    # a prefix is a folder: s3://zoo must not open s3://zoo-secret/
    return any(uri.startswith(prefix if prefix.endswith("/") else prefix + "/") for prefix in caller.prefixes)


def check_uris(caller: Principal, spec: JobSpec, bucket: str) -> None:
    """Raises PrefixNotAllowed, which names each forbidden URI and what is allowed."""
    named = {("body", "model", "uri"): spec.model.uri}
    if spec.data.uri is not None:
        named["body", "data", "uri"] = spec.data.uri
    _refuse(caller, {loc: uri for loc, uri in named.items() if not may_read(caller, uri, bucket)}, bucket)


def check_uri(caller: Principal, uri: str, bucket: str, *, loc: tuple[str, ...]) -> None:
    """The same for one URI, which stands at `loc` in the request."""
    _refuse(caller, {} if may_read(caller, uri, bucket) else {loc: uri}, bucket)


def _refuse(caller: Principal, forbidden: dict[tuple[str, ...], str], bucket: str) -> None:
    if not forbidden:
        return
    allowed = sorted({*caller.prefixes, own_area(caller.tenant, bucket)})
    errors = tuple(
        FieldError(loc=list(loc), msg=f"{uri} is not under an allowed prefix", type="prefix")
        for loc, uri in forbidden.items()
    )
    raise PrefixNotAllowed(
        f"This API key may not read {' and '.join(forbidden.values())}. It may read {', '.join(allowed)}: "
        "put the files there, or use a key that allows more.",
        errors=errors,
        allowed=allowed,
    )
