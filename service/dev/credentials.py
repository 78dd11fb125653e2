"""The credentials of our own S3 server: random, and kept across restarts for this user's eyes only."""

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class S3Credentials:
    """An access key and its secret."""

    access_key: str
    secret_key: str = field(repr=False)

    def env(self) -> dict[str, str]:
        """What boto3 and other S3 clients read; a session token of the user's does not belong to them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_SESSION_TOKEN": "",
        }


def kept_credentials(path: Path) -> S3Credentials:
    """The credentials in that file; new ones where it is missing or not ours."""
    if path.is_file():
        stored = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        if stored.get("AWS_ACCESS_KEY_ID") and stored.get("AWS_SECRET_ACCESS_KEY"):
            return S3Credentials(stored["AWS_ACCESS_KEY_ID"], stored["AWS_SECRET_ACCESS_KEY"])
    return S3Credentials(secrets.token_hex(10), secrets.token_urlsafe(30))


def keep_credentials(path: Path, credentials: S3Credentials, endpoint: str) -> None:
    """Write them so that a shell can read them: `set -a; . .secateur/s3.env`."""
    lines = {**credentials.env(), "AWS_ENDPOINT_URL_S3": endpoint, "AWS_REGION": "us-east-1"}
    lines.pop("AWS_SESSION_TOKEN")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{key}={value}\n" for key, value in lines.items())
