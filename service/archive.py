"""The durable archive: the record of each ended job in S3, and the end of deleted ones."""

import json
from typing import Any

from redis import Redis

from service.store.blobs import Blobs
from service.store.queues import Queues
from service.store.records import JobRecords

BATCH = 20
"""Jobs in one tick: the loop has other things to do too."""


class Archivist:
    """Writes `job.json`, `manifest.json` and `log.txt` of each ended job; empties folders of deleted ones."""

    def __init__(self, redis: Redis, queues: Queues, blobs: Blobs) -> None:
        self._records = JobRecords(redis)
        self._queues = queues
        self._blobs = blobs

    def work(self) -> None:
        """A batch of each chore. Raises BlobUnavailable; what was not done is done in a later call."""
        for id in self._queues.to_archive(BATCH):
            self._archive(id)
            self._queues.archived(id)
        for prefix in self._queues.trash(BATCH):
            self._blobs.delete_prefix(prefix)
            self._queues.emptied(prefix)

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
