"""Image source of a host with direct access to the image store: local files, or downloads from object storage."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.settings import Settings
from compute_agent.images.fetch import BACKOFF_SECONDS, Download, ImageCache, TransferInterrupted
from hypervisor.api.errors import ImageUnusable
from hypervisor.api.protocol import ImageSource
from hypervisor.api.spec import ImageRef
from image_api.stores.factory import make_store
from image_api.stores.file import FileStore, Store
from image_api.stores.object_keys import disk_key


class LocalImages:
    """Implements hypervisor.api.protocol.ImageSource for a store with local files."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def local_path(self, image: ImageRef) -> Path:
        """Return the disk, decompressed if the upload was compressed. Raises ImageUnusable when it does not exist."""
        for name in (disk_key(image.id), image.id):
            if (path := self._store.local_path(name)) is not None:
                return path
        raise ImageUnusable(f"Image {image.id} is no longer in the store.")


class FetchedImages:
    """Implements ImageSource for an object store, with a download cache."""

    def __init__(self, store: Store, directory: Path, *, backoff_seconds: float = BACKOFF_SECONDS) -> None:
        self._store = store
        self._cache = ImageCache(directory, self._open, backoff_seconds)

    def local_path(self, image: ImageRef) -> Path:
        """Return the downloaded disk; concurrent calls share a download. Raises ImageUnusable."""
        return self._cache.path(image)

    @contextmanager
    def _open(self, image: ImageRef, start: int) -> Iterator[Download]:
        try:
            name, total_bytes = self._find(image.id)
            yield Download(
                start,
                total_bytes,
                self._store.read(name, start, total_bytes - start) if start < total_bytes else iter(()),
            )
        except FileNotFoundError:
            raise ImageUnusable(f"Image {image.id} is no longer in the store.") from None
        except (ImageUnusable, TransferInterrupted):
            raise
        except Exception as error:  # stores raise the errors of their client library
            raise TransferInterrupted(str(error)) from error

    def _find(self, image_id: str) -> tuple[str, int]:
        try:
            return disk_key(image_id), self._store.size(disk_key(image_id))
        except FileNotFoundError:
            return image_id, self._store.size(image_id)


def make_source(settings: Settings) -> ImageSource:
    """Return the image source of the settings. Raises OperatorError."""
    store = make_store(settings)
    if isinstance(store, FileStore):
        return LocalImages(store)
    return FetchedImages(store, settings.state / "images" / "fetched")
