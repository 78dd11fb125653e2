"""Puts the demo's model and data into the S3 server that the environment names."""

from pathlib import Path
from typing import Any

from service.dev.stack import DATA, ZOO
from service.settings import Settings
from service.store.blobs import client

HERE = Path(__file__).parent
PLACES = ((HERE / "model", ZOO, "fashion-resnet/"), (HERE / "data", DATA, "fashion-mnist/"))


def upload(s3: Any) -> list[str]:
    """Send all files through a boto3 client; returns the folders they are in now."""
    for folder, bucket, prefix in PLACES:
        for path in sorted(folder.iterdir()):
            s3.upload_file(str(path), bucket, prefix + path.name)
    return [f"s3://{bucket}/{prefix}" for _, bucket, prefix in PLACES]


if __name__ == "__main__":
    print("\n".join(upload(client(Settings()))))
