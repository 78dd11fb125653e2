"""Ranges of S3 objects, straight from the socket into a reused buffer.

botocore signs and `http.client` reads: through botocore's own stream the same download needed a sixth more
CPU time, and through boto3's download_file with its defaults twice as much (1 GiB from a local SeaweedFS).
"""

import http.client
import random
import re
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

import botocore.session

from service.store.blobs import BlobConflict, Blobs, BlobUnavailable, explained, refusal

ATTEMPTS = 5
TIMEOUT_S = 30.0
_CHUNK = 512 * 1024  # fits the second-level cache, where the checksum finds it
_LINK_SECONDS = 3600

Sink = Callable[[int, memoryview], None]
"""Takes the bytes at an offset of the object; the view is valid only during the call."""


class Unavailable(Exception):
    """This attempt failed; another may not."""


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except (http.client.HTTPException, OSError) as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error


class RangeReader:
    """Reads ranges of the objects of one bucket. Each thread has its own connection."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._mine = threading.local()

    def read(self, key: str, etag: str, start: int, end: int, sink: Sink) -> None:
        """Give the bytes [start, end) to `sink`, in order; a broken connection goes on where it broke.

        Raises BlobConflict when the object is no longer the one with `etag`, else BlobError's classes.
        """
        position = start

        def advance(offset: int, view: memoryview) -> None:
            nonlocal position
            sink(offset, view)
            position = offset + len(view)

        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(key, etag, position, end, advance)
            except Unavailable as error:
                if attempt == ATTEMPTS:
                    raise BlobUnavailable(
                        f"s3://{self._blobs.bucket}/{key}: the download broke {ATTEMPTS} times, the last "
                        f"time with '{error}'; check the connection to S3 and retry"
                    ) from error
                time.sleep(random.uniform(0, 0.25 * 2**attempt))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, key: str, etag: str, start: int, end: int, sink: Sink) -> None:
        whole = False
        try:
            with _network():
                response = self._request(key, etag, start, end)
            while start < end:
                count = self._fill(response, end - start)
                sink(start, self._mine.buffer[:count])
                start += count
            with _network():
                response.read()  # nothing is left, but only this frees the connection
            whole = True
        finally:
            if not whole:
                self._hang_up()  # what is left in the socket belongs to this answer

    def _fill(self, response: http.client.HTTPResponse, wanted: int) -> int:
        buffer: memoryview = self._mine.buffer
        with _network():
            count = response.readinto(buffer[: min(len(buffer), wanted)])
        if count == 0:
            raise Unavailable(f"the answer ended {wanted} bytes early")
        return count

    def _request(self, key: str, etag: str, start: int, end: int) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={start}-{end - 1}", "If-Match": f'"{etag}"'}
        params = {
            "Bucket": self._blobs.bucket,
            "Key": key,
            "Range": headers["Range"],
            "IfMatch": headers["If-Match"],
        }
        with explained(self._blobs.bucket, key):
            link = self._blobs.client.generate_presigned_url(
                "get_object", Params=params, ExpiresIn=_LINK_SECONDS
            )
        connection = self._connection(link)
        connection.request("GET", self._target(link), headers=headers)
        response = connection.getresponse()
        if response.status == 206:
            return response
        body = response.read(64 * 1024).decode(errors="replace")
        code = re.search(r"<Code>(\w+)</Code>", body)
        if response.status == 429 or response.status >= 500:
            raise Unavailable(f"S3 answered {response.status}")
        if response.status == 412:
            raise BlobConflict(f"s3://{self._blobs.bucket}/{key} changed while it was read")
        raise refusal(response.status, code[1] if code else response.reason, self._blobs.bucket, key)

    def _connection(self, link: str) -> http.client.HTTPConnection:
        if not hasattr(self._mine, "connection"):
            self._mine.connection = self._connect(link)
            self._mine.buffer = memoryview(bytearray(_CHUNK))
        connection: http.client.HTTPConnection = self._mine.connection
        return connection

    def _connect(self, link: str) -> http.client.HTTPConnection:
        parts = urlsplit(link)
        proxy = self._proxy(link)
        host, port = (proxy.hostname, proxy.port) if proxy else (parts.hostname, parts.port)
        assert host is not None
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        secure = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._tls)
        if proxy:
            secure.set_tunnel(str(parts.hostname), parts.port or 443)
        return secure

    def _target(self, link: str) -> str:
        parts = urlsplit(link)
        if parts.scheme == "http" and self._proxy(link):
            return link
        return f"{parts.path}?{parts.query}"

    def _proxy(self, link: str) -> SplitResult | None:
        """The proxy that the environment names for this host, as botocore sees it."""
        parts = urlsplit(link)
        if urllib.request.proxy_bypass(str(parts.hostname)):
            return None
        found = self._proxies.get(parts.scheme)
        return urlsplit(found) if found else None

    @cached_property
    def _proxies(self) -> dict[str, str]:
        return urllib.request.getproxies()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        bundle = botocore.session.get_session().get_config_variable("ca_bundle")
        return ssl.create_default_context(cafile=bundle)

    def _hang_up(self) -> None:
        if hasattr(self._mine, "connection"):
            self._mine.connection.close()
            del self._mine.connection
