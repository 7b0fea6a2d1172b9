"""Which way leads to hosts on other computers: none without a broker, and then Celery is not even loaded."""

from collections.abc import Callable, Sequence
from typing import Any

from app.core.settings import Settings

Remote = tuple[Callable[[str, Sequence[int]], None] | None, Callable[..., Any] | None]


def remote(settings: Settings) -> Remote:
    """How to nudge and how to ask hosts on other computers."""
    if settings.broker_url is None:
        return None, None
    from compute_api.rpc.celery_app import celery
    from compute_api.rpc.remote_host_client import RemoteAsk
    from compute_api.rpc.task_publisher import CeleryNudge

    authority = settings.broker_authority
    return CeleryNudge(celery(settings.broker_url, authority)), RemoteAsk(settings.broker_url, authority)
