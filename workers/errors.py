"""How a job ends badly; the class says what happens next."""

from schemas.job import FailureClass

_MOST_CHARACTERS = 4000


class JobError(Exception):
    """The job failed and would fail again. The message names the cause and the remedy, for the user.

    A message quotes names that the user's files hold: of these it keeps what can be shown and sent on.
    """

    failure_class = FailureClass.internal

    def __init__(self, message: str = "") -> None:
        shown = message if len(message) <= _MOST_CHARACTERS else f"{message[:_MOST_CHARACTERS]} …"
        super().__init__("".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in shown))


class PreflightError(JobError):
    """The spec cannot work with this model: found before any fine-tuning."""

    failure_class = FailureClass.preflight


class ModelError(JobError):
    """The model folder cannot be used."""

    failure_class = FailureClass.model


class DataError(JobError):
    """The data folder cannot be used."""

    failure_class = FailureClass.data


class FloorBroken(JobError):
    """Not even the first round held the floor."""

    failure_class = FailureClass.accuracy_floor


class OutOfMemory(JobError):
    """The device's memory does not hold this job."""

    failure_class = FailureClass.out_of_memory


class NoDevice(JobError):
    """The device that the job asks for does not work here."""

    failure_class = FailureClass.no_device


class StorageError(JobError):
    """S3 refused: no such bucket or key, no permission, or no answer after retries."""

    failure_class = FailureClass.storage


class StorageUnavailable(StorageError):
    """S3 does not answer now: worth another try."""


class Stopped(Exception):
    """The supervisor asked the child to stop: cancel, drain, or the lease is lost."""
