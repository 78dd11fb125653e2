"""The Celery worker: a message is a doorbell, the record in Redis decides. Run by `secateur worker`."""

from typing import Any

from celery import Celery, signals

from schemas.wire import RING_TASK
from service.exposition import serve_metrics
from service.logs import configure_logs
from service.settings import Settings
from workers.agent import Agent


def create_worker(settings: Settings) -> tuple[Celery, Agent]:
    """The Celery app with its one task, and the agent that the task wakes."""
    app = Celery("secateur", broker=settings.broker_url)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,  # a lost ring costs nothing: the steward rings again
        worker_disable_prefetch=True,  # a ring is taken only by a free slot
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_timeout": 30, "socket_keepalive": True, "visibility_timeout": 3600},
        accept_content=["json"],
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    agent = Agent(settings)

    @app.task(name=RING_TASK)  # type: ignore[untyped-decorator]
    def ring() -> None:
        agent.serve()

    return app, agent


def run(settings: Settings) -> int:
    """Work until SIGTERM: then give running jobs back and return. Why threads: CONTRIBUTING, Decisions."""
    configure_logs(settings.log_level, settings.log_format)
    app, agent = create_worker(settings)

    def on_ready(**_: Any) -> None:
        agent.start()

    def on_shutdown(**_: Any) -> None:
        agent.drain()

    def keep_our_logs(**_: Any) -> None:
        """Celery must not install handlers of its own."""

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_shutdown, weak=False)
    signals.setup_logging.connect(keep_our_logs, weak=False)
    serve_metrics(settings.worker_metrics_port, settings.metrics_host, "SECATEUR_WORKER_METRICS_PORT")
    queues = ",".join(one.queue for one in agent.classes)
    try:
        app.worker_main(
            [
                "worker",
                "--pool=threads",
                f"--concurrency={agent.slot_count}",
                f"--queues={queues}",
                f"--hostname={agent.id}@%h",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                f"--loglevel={settings.log_level}",
            ]
        )
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        agent.stop()
    return 0


def main() -> int:
    """For `python -m workers`."""
    return run(Settings())
