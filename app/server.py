"""The API's process: granian with its workers. `python -m app.server`, with the settings in SIXSTACK_*."""

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from app import processes
from app.settings import Settings
from image_api.startup import put_in_order


def main() -> None:
    """Serve until SIGTERM."""
    processes.end_with_parent()
    settings = Settings.read({})
    host, port = settings.address
    put_in_order(settings)
    Granian(
        "app.factory:from_environment",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.worker_threads + settings.transfer_threads,
        log_level=LogLevels.error,
        websockets=False,
        respawn_failed_workers=True,
        respawn_interval=0.5,
        workers_kill_timeout=10,
    ).serve()


if __name__ == "__main__":
    main()
