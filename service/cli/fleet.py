"""Commands for the fleet: workers, queues."""

from schemas.fleet import Queue, Worker
from service.cli.output import JsonOption
from service.cli.session import session
from service.cli.tables import queues_table, workers_table


def workers(json: JsonOption = False) -> None:
    """List the workers: their devices, what they serve and how busy they are."""
    with session(json=json) as (client, output):
        page = client.get("/v1/workers", "The workers were not listed.")
        output.emit(page, workers_table(Worker.model_validate(one) for one in page["data"]))


def queues(json: JsonOption = False) -> None:
    """List the queues: what waits, what runs, and why it waits."""
    with session(json=json) as (client, output):
        page = client.get("/v1/queues", "The queues were not listed.")
        output.emit(page, queues_table(Queue.model_validate(one) for one in page["data"]))
