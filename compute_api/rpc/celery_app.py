"""Celery application: one task, a quorum queue per host, no results, no mingle or gossip."""

from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from compute_api.rpc import broker, topology


def work_queue(host: str) -> Queue:
    """Return the task queue of a host. `sixstack host add` declares it; workers may not."""
    return Queue(
        topology.task_queue(host),
        Exchange("", no_declare=True),
        topology.task_queue(host),
        no_declare=True,
        queue_arguments={"x-queue-type": "quorum"},
    )


def make_celery(url: str, authority: str | None, *, host: str | None = None) -> Celery:
    """Return an application that publishes tasks or, with `host`, runs the tasks of that host."""
    app = Celery("sixstack", set_as_current=False)
    connecting: dict[str, Any] = broker.connection_options(url, authority)
    app.conf.update(
        broker_url=url,
        broker_transport_options=connecting["transport_options"],
        broker_use_ssl=connecting.get("ssl", False),
        broker_heartbeat=broker.HEARTBEAT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    if host is not None:
        app.conf.task_queues = [work_queue(host)]
    return app
