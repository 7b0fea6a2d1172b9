"""The API's process: granian with its workers. `python -m app.server`, with the settings in SIXSTACK_*."""

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
"""Connections that a worker accepts at a time, idle ones included; more wait to be accepted."""

log = logging.getLogger("sixstack.api")


def main() -> None:
    """Serve until SIGTERM."""
    processes.end_with_parent()
    settings = Settings.read({})
    host, port = settings.address
    if not _try_recover_images(settings):  # requests are answered 503 until the database is back
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
    """Raise the soft limit of open files, as far as the hard one lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def gateway() -> Gateway:
    """The application of a worker process, as granian loads it."""
    settings = Settings.read({})
    app = factory.from_environment()
    limits = Limits(
        request_threads=settings.worker_threads,
        upload_threads=settings.transfer_threads + settings.worker_threads,  # some refuse uploads, others receive them
        body_seconds=settings.request_body_seconds,
        rate=MinimumRate(settings.transfer_min_kib, settings.transfer_grace_seconds),
    )
    return Gateway(app, lambda method, path: factory.is_streamed(app, method, path), limits)


def _try_recover_images(settings: Settings) -> bool:
    """Whether images could be put in order: not while the database is away."""
    try:
        recover(settings)
    except Exception as error:
        if not is_unreachable(error):
            raise
        log.warning("The database cannot be reached: %s", error)
        return False
    return True


def _retry_recover_images(settings: Settings) -> None:
    while not _try_recover_images(settings):
        time.sleep(1)


if __name__ == "__main__":
    main()
