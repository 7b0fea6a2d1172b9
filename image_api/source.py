"""The store as a host on the same machine sees it: no HTTP, no database, just the files."""

from pathlib import Path

from hypervisor.errors import ImageUnusable
from hypervisor.machine import ImageRef
from image_api.names import disk_object
from image_api.store import Store


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
