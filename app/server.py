"""API server: granian and its worker processes. `python -m app.server` reads its settings from SIXSTACK_*."""

import logging
import resource
import threading
import time

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from app import factory
from app.core import processes
from app.core.settings import Settings
from app.db.database import is_unreachable
from app.http.rsgi import Gateway, Limits
from app.http.transfers import MinimumRate
from image_api.imports.recovery import recover

CONNECTIONS = 4096
"""Connections that a worker accepts, idle ones included; further ones stay in the listen backlog."""

log = logging.getLogger("sixstack.api")


def main() -> None:
    """Serve until SIGTERM."""
    processes.end_with_parent()
    settings = Settings.read({})
    host, port = settings.address
    if not _try_recover_images(settings):  # requests get 503 until the database is reachable
        threading.Thread(target=_retry_recover_images, args=(settings,), daemon=True).start()
    _allow_open_files(2 * CONNECTIONS)
    Granian(
        "app.server:gateway",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        workers=settings.workers,
        backpressure=CONNECTIONS,
        log_level=LogLevels.error,
        websockets=False,
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=10,
    ).serve()


def _allow_open_files(count: int) -> None:
    """Raise the soft limit of open files up to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def gateway() -> Gateway:
    """Create the application of a worker process; called by granian."""
    settings = Settings.read({})
    app = factory.from_environment()
    limits = Limits(
        request_threads=settings.worker_threads,
        upload_threads=settings.transfer_threads + settings.worker_threads,  # request threads also reject uploads
        body_seconds=settings.request_body_seconds,
        rate=MinimumRate(settings.transfer_min_kib, settings.transfer_grace_seconds),
    )
    return Gateway(app, lambda method, path: factory.is_streamed(app, method, path), limits)


def _try_recover_images(settings: Settings) -> bool:
    """Recover interrupted uploads and imports. Returns False when the database is unreachable."""
    try:
        recover(settings)
    except Exception as error:
        if not is_unreachable(error):
            raise
        log.warning("Image recovery postponed; the database cannot be reached: %s", error)
        return False
    return True


def _retry_recover_images(settings: Settings) -> None:
    while not _try_recover_images(settings):
        time.sleep(1)


if __name__ == "__main__":
    main()
