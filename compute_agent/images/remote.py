"""Image source of a remote host: downloads from and uploads to the image API with the host's credential."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import urllib3

from app.core import errors
from compute_agent.images.fetch import (
    BACKOFF_SECONDS,
    MAX_BACKOFF,
    MAX_FAILURES,
    Download,
    ImageCache,
    TransferInterrupted,
)
from hypervisor.api.errors import ImageUnusable
from hypervisor.api.spec import ImageRef, SnapshotFile

TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)
CHUNK_BYTES = 1 << 20


class RemoteImages:
    """Implements ImageSource over HTTP."""

    def __init__(
        self, api_url: str, host: str, secret: str, directory: Path, *, backoff_seconds: float = BACKOFF_SECONDS
    ) -> None:
        self._url = f"{api_url.rstrip('/')}/image/hosts"
        self._headers = urllib3.make_headers(basic_auth=f"{host}:{secret}")
        self._backoff_seconds = backoff_seconds
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False)
        self._cache = ImageCache(directory, self._open, backoff_seconds)

    def local_path(self, image: ImageRef) -> Path:
        """Return the downloaded disk; concurrent calls share a download. Raises ImageUnusable."""
        return self._cache.path(image)

    def upload(self, image_id: str, snapshot: SnapshotFile) -> None:
        """Upload a snapshot; restarts from the beginning when interrupted. Raises SixstackError."""
        url = f"{self._url}/snapshots/{image_id}?disk_format={snapshot.disk_format}"
        with snapshot.path.open("rb") as file:
            digest = b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
        headers = {
            **self._headers,
            "Content-Length": str(snapshot.path.stat().st_size),
            "Content-Type": "application/octet-stream",
            "Content-Digest": f"sha-512=:{digest}:",
        }
        reason = ""
        for attempt in range(MAX_FAILURES):
            time.sleep(self._backoff_seconds * min(attempt, MAX_BACKOFF))
            try:
                with snapshot.path.open("rb") as file:
                    answer = self._http.request("PUT", url, body=file, headers=headers)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                reason = str(error)
                continue
            if answer.status < 300:
                return
            reason = _error_text(answer)
            if answer.status == 404:
                raise errors.NotFound(f"Image {image_id} was deleted while it was created.")
            if answer.status < 500:
                break
        raise errors.Unavailable(f"Image {image_id} could not be uploaded: {reason}")

    @contextmanager
    def _open(self, image: ImageRef, start: int) -> Iterator[Download]:
        headers = {**self._headers, "Range": f"bytes={start}-"} if start else self._headers
        url = f"{self._url}/disks/{image.id}"
        try:
            answer = self._http.request("GET", url, headers=headers, preload_content=False)
            try:
                if answer.status == 416:
                    yield Download(start, 0, iter(()))
                else:
                    yield Download(*_parse_range(image, answer), _read_chunks(answer))
            finally:
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise TransferInterrupted(str(error)) from error


def _parse_range(image: ImageRef, answer: urllib3.BaseHTTPResponse) -> tuple[int, int]:
    """Return the offset of the first byte and the size of the disk. Raises ImageUnusable, TransferInterrupted."""
    if answer.status == 404:
        raise ImageUnusable(f"Image {image.id} is no longer in the store.")
    if answer.status in (401, 403):
        raise ImageUnusable(f"The image service refuses image {image.id} to this host: {_error_text(answer)}")
    try:
        if answer.status == 206:
            places, _, total_bytes = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")
            return int(places.partition("-")[0]), int(total_bytes)
        if answer.status == 200:  # a proxy may remove Content-Length
            return 0, int(answer.headers.get("Content-Length", image.size_bytes))
    except (KeyError, ValueError):
        raise TransferInterrupted("invalid Content-Range or Content-Length in the image API response") from None
    raise TransferInterrupted(_error_text(answer))


def _read_chunks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    while piece := answer.read1(CHUNK_BYTES):
        yield piece


def _error_text(answer: urllib3.BaseHTTPResponse) -> str:
    """Return the image API's error message."""
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = ""
    return f"the image API answered {answer.status}{': ' if message else '.'}{message}"
