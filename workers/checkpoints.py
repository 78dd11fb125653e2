"""A round's weights in S3: written under a name of their own, real only once the round is committed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_model
from torch import nn

from schemas.round import Checkpoint
from service.store.blobs import Blobs
from workers.errors import StorageError
from workers.messages import JobOrder
from workers.patience import patiently
from workers.transfer import Pulled, pull_folder

WEIGHTS = "model.safetensors"
SURGERY = "surgery.json"


@dataclass(frozen=True)
class Saved:
    """A round on the local disk: its weights, and what gives the dense model their shapes."""

    weights: Path
    surgery: str | None


class Checkpoints:
    """Of one attempt. The last committed round also stays on the local disk, for a rollback."""

    def __init__(self, order: JobOrder, blobs: Blobs, folder: Path, heard: Callable[[], None]) -> None:
        self._order = order
        self._blobs = blobs
        self._folder = folder
        self._heard = heard
        self.last: Saved | None = None
        """None: no round has held yet."""

    def save(self, module: nn.Module, surgery: str | None, number: int, dense_metric: float) -> Checkpoint:
        """Write the weights and buffers of round `number`; the optimizer is new in each round."""
        folder = self._folder / f"round-{number}"
        folder.mkdir()
        path = folder / WEIGHTS
        save_model(module, str(path), metadata={"format": "pt"})
        prefix = f"{self._order.prefix}rounds/{number}/{self._order.token.replace(':', '-')}/"
        if surgery is not None:
            (folder / SURGERY).write_text(surgery, encoding="utf-8")
            patiently(lambda: self._blobs.upload_file(folder / SURGERY, prefix + SURGERY), self._heard)
        sent = patiently(lambda: self._blobs.upload_file(path, prefix + WEIGHTS), self._heard)
        if self.last is not None:
            self.last.weights.unlink()
        self.last = Saved(path, surgery)
        return Checkpoint(
            round=number, prefix=prefix, sha256=sent.sha256, bytes=sent.bytes, dense_metric=dense_metric
        )

    def fetch(self, checkpoint: Checkpoint) -> Saved:
        """A committed round. Raises StorageError when it is gone or is not what was written."""
        folder = self._folder / "restored"
        uri = f"s3://{self._blobs.bucket}/{checkpoint.prefix}"

        def pull() -> Pulled:
            allow = (WEIGHTS, SURGERY)
            return pull_folder(self._blobs, uri, folder, allow=allow, on_bytes=lambda *_: self._heard())

        patiently(pull, self._heard)
        path = folder / WEIGHTS
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checkpoint.sha256:
            raise StorageError(
                f"{uri}{WEIGHTS} is not what round {checkpoint.round} wrote: its SHA-256 differs"
            )
        written = folder / SURGERY
        self.last = Saved(path, written.read_text(encoding="utf-8") if written.is_file() else None)
        return self.last
