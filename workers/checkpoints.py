"""A round's weights in S3: written under a name of their own, real only once the round is committed."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn

from schemas.round import Checkpoint
from service.store.blobs import Blobs
from workers.errors import StorageError
from workers.messages import JobOrder
from workers.patience import patiently
from workers.transfer import Pulled, pull_folder

WEIGHTS = "model.safetensors"


class Checkpoints:
    """Of one attempt. The last committed round also stays on the local disk, for a rollback."""

    def __init__(self, order: JobOrder, blobs: Blobs, folder: Path, heard: Callable[[], None]) -> None:
        self._order = order
        self._blobs = blobs
        self._folder = folder
        self._heard = heard
        self._last: Path | None = None

    def save(self, module: nn.Module, number: int, dense_metric: float) -> Checkpoint:
        """Write the weights and buffers of round `number`; the optimizer is new in each round."""
        path = self._folder / f"round-{number}.safetensors"
        save_model(module, str(path), metadata={"format": "pt"})
        prefix = f"{self._order.prefix}rounds/{number}/{self._order.token.replace(':', '-')}/"
        sent = patiently(lambda: self._blobs.upload_file(path, prefix + WEIGHTS), self._heard)
        if self._last is not None:
            self._last.unlink()
        self._last = path
        return Checkpoint(
            round=number, prefix=prefix, sha256=sent.sha256, bytes=sent.bytes, dense_metric=dense_metric
        )

    def restore(self, module: nn.Module, checkpoint: Checkpoint) -> None:
        """Load a committed round. Raises StorageError when it is gone or is not what was written."""
        folder = self._folder / "restored"
        uri = f"s3://{self._blobs.bucket}/{checkpoint.prefix}"

        def pull() -> Pulled:
            return pull_folder(self._blobs, uri, folder, allow=(WEIGHTS,), on_bytes=lambda *_: self._heard())

        patiently(pull, self._heard)
        path = folder / WEIGHTS
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checkpoint.sha256:
            raise StorageError(
                f"{uri}{WEIGHTS} is not what round {checkpoint.round} wrote: its SHA-256 differs"
            )
        load_model(module, str(path))
        self._last = path

    def rollback(self, module: nn.Module) -> None:
        """Back to the last committed round."""
        assert self._last is not None
        load_model(module, str(self._last))
