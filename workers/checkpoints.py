"""A round's weights in S3: written under a name of their own, real only once the round is committed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel
from safetensors.torch import save_model
from torch import nn

from schemas.job_spec import JobSpec
from schemas.report import Curve
from schemas.round import Checkpoint
from service.store.blobs import Blobs
from workers.errors import StorageError
from workers.messages import JobOrder
from workers.patience import patiently
from workers.transfer import Pulled, pull_folder

WEIGHTS = "model.safetensors"
SURGERY = "surgery.json"
STATE = "state.json"


class State(BaseModel):
    """What a report says that the weights do not, as it was when the round ended."""

    spec: JobSpec | None = None
    """What recipe `auto` chose."""
    metrics: dict[str, float] | None = None
    """Measured beside the metric, of this round; None: not known."""
    dense_metrics: dict[str, float] | None = None
    curves: list[Curve] = []
    decisions: list[str] = []
    notes: list[str] = []


@dataclass(frozen=True)
class Saved:
    """A round on the local disk: its weights, and what gives the dense model their shapes."""

    weights: Path
    surgery: str | None
    state: State


class Checkpoints:
    """Of one attempt. The last committed round also stays on the local disk, for a rollback."""

    def __init__(self, order: JobOrder, blobs: Blobs, folder: Path, heard: Callable[[], None]) -> None:
        self._order = order
        self._blobs = blobs
        self._folder = folder
        self._heard = heard
        self.last: Saved | None = None
        """None: no round has held yet."""

    def save(
        self, module: nn.Module, surgery: str | None, state: State, number: int, dense_metric: float
    ) -> Checkpoint:
        """Write the weights and buffers of round `number`; the optimizer is new in each round."""
        folder = self._folder / f"round-{number}"
        folder.mkdir()
        path = folder / WEIGHTS
        save_model(module, str(path), metadata={"format": "pt"})
        prefix = f"{self._order.prefix}rounds/{number}/{self._order.token.replace(':', '-')}/"
        for name, text in ((SURGERY, surgery), (STATE, state.model_dump_json())):
            if text is not None:
                self._send(folder / name, text, prefix)
        sent = patiently(lambda: self._blobs.upload_file(path, prefix + WEIGHTS), self._heard)
        if self.last is not None:
            self.last.weights.unlink()
        self.last = Saved(path, surgery, state)
        return Checkpoint(
            round=number, prefix=prefix, sha256=sent.sha256, bytes=sent.bytes, dense_metric=dense_metric
        )

    def _send(self, path: Path, text: str, prefix: str) -> None:
        path.write_text(text, encoding="utf-8")
        patiently(lambda: self._blobs.upload_file(path, prefix + path.name), self._heard)

    def state_of(self, checkpoint: Checkpoint) -> State:
        """What was written beside a committed round; an empty one where nothing was."""
        folder = self._folder / "decided"
        self._pull(checkpoint, folder, (STATE,))
        return _state(folder)

    def _pull(self, checkpoint: Checkpoint, folder: Path, allow: tuple[str, ...]) -> None:
        uri = f"s3://{self._blobs.bucket}/{checkpoint.prefix}"

        def pull() -> Pulled:
            return pull_folder(self._blobs, uri, folder, allow=allow, on_bytes=lambda *_: self._heard())

        patiently(pull, self._heard)

    def fetch(self, checkpoint: Checkpoint) -> Saved:
        """A committed round. Raises StorageError when it is gone or is not what was written."""
        folder = self._folder / "restored"
        self._pull(checkpoint, folder, (WEIGHTS, SURGERY, STATE))
        path = folder / WEIGHTS
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != checkpoint.sha256:
            uri = f"s3://{self._blobs.bucket}/{checkpoint.prefix}{WEIGHTS}"
            raise StorageError(f"{uri} is not what round {checkpoint.round} wrote: its SHA-256 differs")
        written = folder / SURGERY
        surgery = written.read_text(encoding="utf-8") if written.is_file() else None
        self.last = Saved(path, surgery, _state(folder))
        return self.last


def _state(folder: Path) -> State:
    path = folder / STATE
    return State.model_validate_json(path.read_bytes()) if path.is_file() else State()
