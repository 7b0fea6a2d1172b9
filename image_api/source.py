"""The store as a host sees it: no HTTP, no database, just files with the bytes of disks."""

import fcntl
import time
from pathlib import Path

from app.settings import Settings
from hypervisor.errors import ImageUnusable
from hypervisor.machine import ImageRef
from hypervisor.protocol import ImageSource
from image_api.names import disk_object
from image_api.store import FileStore, Store
from image_api.stores import make_store

KEPT_SECONDS = 3600.0


class LocalImages:
    """Implements hypervisor.protocol.ImageSource over a store whose files are on this machine."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def local_path(self, image: ImageRef) -> Path:
        """The disk: unpacked, where the upload was compressed. Raises ImageUnusable when the image is gone."""
        for name in (disk_object(image.id), image.id):
            if (path := self._store.local_path(name)) is not None:
                return path
        raise ImageUnusable(f"Image {image.id} is no longer in the store.")


class FetchedImages:
    """Implements ImageSource over a store that is elsewhere: a disk is fetched when it is asked for.

    The host verifies the hash and keeps a base of its own, so fetched files are removed an hour later.
    """

    def __init__(self, store: Store, directory: Path) -> None:
        self._store = store
        self._files = FileStore(directory)
        self._lock = directory / ".lock"

    def local_path(self, image: ImageRef) -> Path:
        """The disk, fetched once however many ask at a time. Raises ImageUnusable when it cannot be had."""
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (path := self._files.local_path(image.id)) is None:
                self._remove_old()
                self._fetch(image)
                path = self._files.directory / image.id
            path.touch()
            return path

    def _fetch(self, image: ImageRef) -> None:
        try:
            name = disk_object(image.id)
            try:
                size = self._store.size(name)
            except FileNotFoundError:
                name = image.id
                size = self._store.size(name)
            with self._files.writer(image.id, sparse=True) as writer:
                for piece in self._store.read(name, 0, size):
                    writer.write(piece)
                writer.commit()
        except FileNotFoundError:
            raise ImageUnusable(f"Image {image.id} is no longer in the store.") from None
        except Exception as error:
            raise ImageUnusable(f"Image {image.id} cannot be fetched from the store: {error}.") from error

    def _remove_old(self) -> None:
        self._files.sweep()
        for name in self._files.names():
            path = self._files.directory / name
            if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                path.unlink(missing_ok=True)


def make_source(settings: Settings) -> ImageSource:
    """Where this installation's hosts get disks from. Raises OperatorError."""
    store = make_store(settings)
    if isinstance(store, FileStore):
        return LocalImages(store)
    return FetchedImages(store, settings.state / "images" / "fetched")
