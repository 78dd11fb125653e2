"""The child process that runs one job on one device: `python -m workers.child`, started by a supervisor."""

import logging
import os
import signal
import sys
import traceback

from workers.errors import JobError, OutOfMemory, Stopped
from workers.link import Link, PipeLink
from workers.messages import EXIT_DONE, EXIT_STOPPED, FailedMessage, JobOrder
from workers.plugins import from_plugin
from workers.process import die_with_parent
from workers.settings import ChildSettings


def main() -> int:
    """Read the order from standard input, run the job, tell how it ended, and return the exit code."""
    own = ChildSettings.read()
    die_with_parent(own.parent)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    link = PipeLink(os.fdopen(own.messages_fd, "w"), sys.stdin)
    link.stop_on(signal.SIGTERM, signal.SIGINT)
    order = JobOrder.model_validate_json(sys.stdin.readline())
    try:
        return run(order, link)
    except Stopped as stop:
        logging.info("stopped: %s", stop)
        return EXIT_STOPPED


def run(order: JobOrder, link: Link) -> int:
    """The edge of the process: whatever is raised in a job ends here as a sentence for the user."""
    from workers.session import TorchSession  # torch takes seconds to import
    from workers.story import run_job

    try:
        with TorchSession(order, link) as session:
            link.send(run_job(order, session, link))
    except Stopped:
        raise
    except JobError as error:
        traceback.print_exc(file=sys.stdout)
        link.send(FailedMessage(failure_class=error.failure_class, reason=str(error)))
    except MemoryError:
        traceback.print_exc(file=sys.stdout)
        link.send(_out_of_memory())
    except Exception as error:  # noqa: BLE001 - the edge of the process
        traceback.print_exc(file=sys.stdout)
        link.send(_failure(error))
    return EXIT_DONE


def _out_of_memory() -> FailedMessage:
    reason = "The worker ran out of memory: lower fine_tune.batch_size or benchmark.batch_sizes."
    return FailedMessage(failure_class=OutOfMemory.failure_class, reason=reason)


def _failure(error: Exception) -> FailedMessage:
    """What nobody foresaw. torch raises its out-of-memory errors as subclasses of RuntimeError."""
    if type(error).__name__ == "OutOfMemoryError" or "not enough memory" in str(error):
        return _out_of_memory()
    if (theirs := from_plugin(error)) is not None:
        return FailedMessage(failure_class=theirs.failure_class, reason=str(theirs))
    cause = f"{type(error).__name__} ({str(error)[:300]})"
    reason = f"The job failed with {cause}: this is a defect of the service; the job's log says where."
    return FailedMessage(failure_class=JobError.failure_class, reason=reason)


if __name__ == "__main__":
    sys.exit(main())
