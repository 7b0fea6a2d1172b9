"""Factory of the RPC clients of remote hosts. Without a broker Celery is not imported."""

from collections.abc import Callable, Sequence
from typing import Any

from app.core.settings import Settings

Remote = tuple[Callable[[str, Sequence[int]], None] | None, Callable[..., Any] | None]


def make_remote_clients(settings: Settings) -> Remote:
    """Return the notifier and the RPC client of remote hosts, or None for both without a broker."""
    if settings.broker_url is None:
        return None, None
    from compute_api.rpc.celery_app import make_celery
    from compute_api.rpc.remote_host_client import RemoteHostClient
    from compute_api.rpc.task_publisher import CeleryNotifier

    authority = settings.broker_authority
    return CeleryNotifier(make_celery(settings.broker_url, authority)), RemoteHostClient(settings.broker_url, authority)
