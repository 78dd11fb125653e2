"""The durable archive: the record of each ended job in S3, and the end of deleted ones."""

import json
from typing import Any

import structlog
from redis import Redis

from service.store.blobs import BlobError, Blobs
from service.store.queues import Queues
from service.store.records import JobRecords

BATCH = 20
AGAIN_AFTER_S = 60.0

log = structlog.get_logger(__name__)


class Archivist:
    """Writes `job.json`, `manifest.json` and `log.txt` of each ended job; empties folders of deleted ones."""

    def __init__(self, redis: Redis, queues: Queues, blobs: Blobs) -> None:
        self._records = JobRecords(redis)
        self._queues = queues
        self._blobs = blobs

    def work(self) -> None:
        """A batch of each chore. What S3 refuses comes up again in a minute, and holds up nothing else."""
        for chore, do in (("archive", self._archive), ("trash", self._blobs.delete_prefix)):
            for name, since in self._queues.due(chore, BATCH):
                try:
                    do(name)
                except BlobError as error:
                    log.warning("chore_failed", chore=chore, name=name, error=str(error))
                    self._queues.postpone(chore, name, since, AGAIN_AFTER_S)
                else:
                    self._queues.done(chore, name, since)

    def _archive(self, id: str) -> None:
        record = self._records.raw(id)
        if not record:
            return
        folder = f"{record['tenant']}/jobs/{id}/"
        log = "".join(line + "\n" for line in self._records.log_lines(id))
        self._blobs.put_bytes(folder + "log.txt", log.encode())
        if record.get("manifest"):
            self._blobs.put_json(folder + "manifest.json", json.loads(record["manifest"]))
        self._blobs.put_json(folder + "job.json", self._whole(id, record))

    def _whole(self, id: str, record: dict[str, str]) -> dict[str, Any]:
        attempts = self._records.attempts(id, int(record["attempt"]))
        return {
            "record": record,
            "rounds": [one.model_dump(mode="json") for one in self._records.rounds(id)],
            "attempts": [one.model_dump(mode="json") for one in attempts],
        }
