"""Objects in S3: what the service and the workers keep there, with errors that say what to do."""

import hashlib
import json
import mimetypes
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import boto3
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)

from service.settings import MiB, Settings

# boto3's CRT client ignores endpoint_url (github.com/boto/boto3/issues/4839) and would talk to AWS instead;
# with boto3's own 8 MiB parts and 256 KiB reads a download took 1.8 times as long
TRANSFER = TransferConfig(
    multipart_threshold=16 * MiB,
    multipart_chunksize=16 * MiB,
    max_concurrency=8,
    io_chunksize=MiB,
    preferred_transfer_client="classic",
)
_DELETE_AT_ONCE = 1000  # S3's own limit
SHA256_METADATA = "sha256"
"""Uploads carry the hash of the whole file in this metadata key; downloads check it."""


class BlobError(Exception):
    """S3 refused a request. The message names the bucket, the key and the remedy."""


class BlobNotFound(BlobError):
    """No such bucket, or no such key."""


class BlobForbidden(BlobError):
    """No credentials, wrong ones, or ones without the permission."""


class BlobConflict(BlobError):
    """The key exists already (`if_absent`), or the object changed since it was listed."""


class BlobUnavailable(BlobError):
    """No answer, or a server error, after all retries: try again later."""


class Location(NamedTuple):
    """Where in S3."""

    bucket: str
    prefix: str


class Blob(NamedTuple):
    """An object as S3 lists it; `etag` without quotes."""

    key: str
    bytes: int
    etag: str


class Uploaded(NamedTuple):
    """What was sent."""

    bytes: int
    sha256: str


def parse_uri(uri: str) -> Location:
    """`s3://bucket/some/prefix/` in its two parts; raises ValueError for anything else."""
    match = re.fullmatch(r"s3://([^/]+)/?(.*)", uri)
    if match is None:
        raise ValueError(f"'{uri}' is not an S3 URI: write s3://bucket/prefix/")
    return Location(match[1], match[2])


def client(settings: Settings, endpoint_url: str | None = None, *, attempts: int = 5) -> Any:
    """A thread-safe boto3 client. Make it after a fork, never at import."""
    endpoint = endpoint_url or settings.s3_endpoint_url
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.s3_region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint else "auto"},
            retries={"mode": "standard", "max_attempts": attempts},
            connect_timeout=3,
            read_timeout=30,
            tcp_keepalive=True,
            max_pool_connections=64,
            request_checksum_calculation=settings.s3_checksums,
            response_checksum_validation=settings.s3_checksums,
        ),
    )


@dataclass(frozen=True)
class Blobs:
    """One bucket. Threads share an instance; every method raises BlobError's classes."""

    client: Any
    signer: Any
    """Signs download links: a client whose endpoint users can reach."""
    bucket: str

    @classmethod
    def connect(cls, settings: Settings, *, attempts: int = 5) -> Self:
        """The bucket of the settings. Nothing is sent yet. Where somebody waits, try less often."""
        made = client(settings, attempts=attempts)
        public = settings.s3_public_url
        return cls(made, client(settings, public) if public else made, settings.bucket)

    def of(self, bucket: str) -> Self:
        """Another bucket, through the same connections."""
        return replace(self, bucket=bucket)

    def put_json(self, key: str, value: Any, *, if_absent: bool = False) -> None:
        """Write `value` as JSON. With `if_absent`: BlobConflict when the key exists."""
        body = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        self.put_bytes(key, body.encode(), if_absent=if_absent)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write a small object in one request. With `if_absent`: BlobConflict when the key exists."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        with explained(self.bucket, key):
            self.client.put_object(
                Bucket=self.bucket, Key=key, Body=data, ContentType=media_type(key), **condition
            )

    def get_bytes(self, key: str) -> bytes:
        """The whole object, in memory."""
        with explained(self.bucket, key):
            body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body

    def get_range(self, blob: Blob, start: int, end: int) -> bytes:
        """The bytes [start, end) of a listed object, less where it ends earlier. BlobConflict: it changed."""
        if start >= min(end, blob.bytes):
            return b""
        wanted = {"Range": f"bytes={start}-{end - 1}", "IfMatch": f'"{blob.etag}"'}
        with explained(self.bucket, blob.key):
            answer = self.client.get_object(Bucket=self.bucket, Key=blob.key, **wanted)
            with closing(answer["Body"]) as stream:  # a server that knows no ranges sends all of it
                body: bytes = stream.read(end - start)
            return body

    def head(self, key: str, part: int = 0) -> dict[str, Any]:
        """What S3 says about the object: ContentLength, ETag, Metadata, checksums (Checksum…).

        With `part` (from 1): about that part of a multipart upload.
        """
        chosen = {"PartNumber": part} if part else {}
        with explained(self.bucket, key):
            found: dict[str, Any] = self.client.head_object(
                Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **chosen
            )
            return found

    def exists(self, key: str) -> bool:
        """Whether the key is there."""
        try:
            self.head(key)
        except BlobNotFound:
            return False
        return True

    def list(self, prefix: str, *, delimiter: str = "") -> Iterator[Blob]:
        """All objects under `prefix`, in the order of keys; with '/' those of the folder itself only."""
        named = {"Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
        with explained(self.bucket, prefix):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **named)
            for page in pages:
                for item in page.get("Contents", ()):
                    yield Blob(item["Key"], item["Size"], item["ETag"].strip('"'))

    def presign_get(self, key: str, filename: str, seconds: int) -> str:
        """A link that downloads the object as `filename` without credentials, for so many seconds."""
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", filename)
        params = {
            "Bucket": self.bucket,
            "Key": key,
            "ResponseContentDisposition": f'attachment; filename="{safe}"',
        }
        with explained(self.bucket, key):
            link: str = self.signer.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)
            return link

    def delete_prefix(self, prefix: str) -> int:
        """Delete all objects under `prefix`, which ends in a slash; answers how many there were."""
        if not prefix.endswith("/"):
            raise ValueError(f"'{prefix}' must end in '/': jobs/1 would take jobs/10 along")
        keys = [blob.key for blob in self.list(prefix)]
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            chosen = [{"Key": key} for key in keys[start : start + _DELETE_AT_ONCE]]
            with explained(self.bucket, prefix):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": chosen, "Quiet": True}
                )
            failed = answer.get("Errors", [])
            if failed:
                raise BlobError(
                    f"s3://{self.bucket}/{failed[0]['Key']} was not deleted: {failed[0].get('Message')}"
                )
        return len(keys)

    def upload_file(self, path: Path, key: str) -> Uploaded:
        """Send a file, in parts when it is large, each checked by the server; its SHA-256 goes along."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        extra = {"ContentType": media_type(key), "Metadata": {SHA256_METADATA: sha256}}
        with explained(self.bucket, key):
            self.client.upload_file(str(path), self.bucket, key, ExtraArgs=extra, Config=TRANSFER)
        return Uploaded(path.stat().st_size, sha256)


def media_type(name: str) -> str:
    """The content type by the name's suffix."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


@contextmanager
def explained(bucket: str, key: str) -> Iterator[None]:
    """Turn what botocore raises into BlobError's classes."""
    where = f"s3://{bucket}/{key}"
    try:
        yield
    except ClientError as error:
        raise _refusal(error, bucket, key) from error
    except S3UploadFailedError as error:
        if isinstance(error.__context__, ClientError):
            raise _refusal(error.__context__, bucket, key) from error
        raise BlobUnavailable(f"{where} could not be written: {error}; try again") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise BlobForbidden(
            f"{where}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (ConnectionError, HTTPClientError, IncompleteReadError) as error:
        raise BlobUnavailable(
            f"{where}: S3 does not answer ({error}); check SECATEUR_S3_ENDPOINT_URL and that the server runs"
        ) from error
    except BotoCoreError as error:
        raise BlobError(f"{where}: the request could not be made: {error}") from error


def refusal(status: int, code: str, bucket: str, key: str) -> BlobError:
    """The class and the sentence for an answer of S3 that is not a success."""
    where = f"s3://{bucket}/{key}"
    if code == "NoSuchBucket":
        return BlobNotFound(f"{where}: there is no bucket '{bucket}'; create it, or correct its name")
    if status == 404:
        return BlobNotFound(f"{where} does not exist; check bucket and key")
    if status in (401, 403):
        return BlobForbidden(
            f"{where}: access denied ({code}); give these S3 credentials the right to use bucket '{bucket}'"
        )
    if status in (409, 412):
        return BlobConflict(f"{where} exists already or has changed meanwhile ({code})")
    if status == 429 or (status >= 500 and status != 501):  # 501: this server will never do it
        return BlobUnavailable(f"{where}: S3 answered {status} ({code}) after all retries; try again later")
    return BlobError(f"{where}: S3 refused the request with {status} ({code})")


def _refusal(error: ClientError, bucket: str, key: str) -> BlobError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return refusal(int(status), str(error.response.get("Error", {}).get("Code", "")), bucket, key)
