"""What the specs name in S3, and who makes it here."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.tables.fashion import dense_resnet, fashion_data
from tests.tables.mobilenet import few_fashion_data, mobilenet_fashion
from tests.tables.plan import Case
from tests.tables.reuters import minilm_reuters, reuters_data
from tests.tables.tales import smollm, tales_data

MAKERS: Mapping[str, Callable[[], Path]] = {
    **{f"s3://zoo/fashion-resnet-{seed}/": partial(dense_resnet, seed) for seed in range(3)},
    "s3://zoo/minilm-reuters/": minilm_reuters,
    "s3://zoo/mobilenet-fashion/": mobilenet_fashion,
    "s3://zoo/smollm2/": smollm,
    "s3://data/fashion-mnist/": fashion_data,
    "s3://data/fashion-mnist-4k/": few_fashion_data,
    "s3://data/reuters-r8/": reuters_data,
    "s3://data/tales/": tales_data,
}


def named_by(cases: Iterable[Case]) -> list[str]:
    """The folders in S3 that the cases read, each once."""
    return sorted({case.spec[part]["uri"] for case in cases for part in ("model", "data")})


def local(uri: str) -> Path:
    """The folder on this machine, made on first use."""
    return MAKERS[uri]()


def upload(s3: Any, uri: str) -> None:
    """Send the folder's files to where the specs say that they are."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    for path in sorted(local(uri).iterdir()):
        s3.upload_file(str(path), bucket, prefix + path.name)
