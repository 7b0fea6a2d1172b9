"""The API's process: granian with its workers. `python -m app.server`, with the settings in SIXSTACK_*."""

import logging

from granian import Granian
from granian.constants import Interfaces

from app import processes
from app.settings import Settings


def main() -> None:
    """Serve until SIGTERM."""
    processes.end_with_parent()
    settings = Settings.read({})
    host, port = settings.address
    Granian(
        "app.factory:from_environment",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.worker_threads,
        backpressure=1024,
        http1_settings=None,
        log_level=logging.getLevelName(logging.WARNING).lower(),  # type: ignore[arg-type]
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=30,
        process_name="sixstack-api",
    ).serve()


if __name__ == "__main__":
    main()
