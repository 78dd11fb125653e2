"""What the store refuses."""

from schemas.job import Status


class StoreError(Exception):
    """The store refused a change."""


class JobNotFound(StoreError):
    """There is no such job, or it belongs to another tenant."""


class StateConflict(StoreError):
    """The job's status forbids the change."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"the job is {status}")
        self.status = status


class IdempotencyMismatch(StoreError):
    """The idempotency key was used before with another body."""


class LeaseLost(StoreError):
    """Somebody else owns the job now: stop, and write nothing."""
