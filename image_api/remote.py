"""Images for a host on another computer: fetched from the image API with its credential, snapshots sent there."""

import fcntl
import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

import urllib3

from app import errors
from hypervisor.errors import ImageUnusable
from hypervisor.machine import ImageRef, SnapshotFile
from image_api.source import KEPT_SECONDS

log = logging.getLogger(__name__)

TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)
TRIES = 8
PAUSE_SECONDS = 1.0
PIECE = 1 << 20
SAY_SECONDS = 10.0


class RemoteImages:
    """Implements ImageSource over HTTP. What was begun is resumed where it broke off, by whoever asks next.

    The host keeps a base of its own, so fetched files are removed an hour later.
    """

    def __init__(self, api_url: str, host: str, secret: str, directory: Path, *, pause: float = PAUSE_SECONDS) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._url = f"{api_url.rstrip('/')}/image/hosts"
        self._headers = urllib3.make_headers(basic_auth=f"{host}:{secret}")
        self._directory = directory
        self._pause = pause
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def local_path(self, image: ImageRef) -> Path:
        """The disk, fetched once however many ask at a time. Raises ImageUnusable when it cannot be had."""
        with (self._directory / f"{image.id}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = self._directory / image.id
            if not path.exists():
                self._remove_old()
                self._fetch(image, path.with_suffix(".part"))
                path.with_suffix(".part").rename(path)
            path.touch()
            return path

    def upload(self, image_id: str, snapshot: SnapshotFile) -> None:
        """Send a snapshot; from the beginning again when it breaks off. Raises SixstackError."""
        url = f"{self._url}/snapshots/{image_id}?disk_format={snapshot.disk_format}"
        size = str(snapshot.path.stat().st_size)
        reason = ""
        for attempt in range(TRIES):
            time.sleep(self._pause * min(attempt, 5))
            try:
                with snapshot.path.open("rb") as file:
                    headers = {**self._headers, "Content-Length": size, "Content-Type": "application/octet-stream"}
                    answer = self._http.request("PUT", url, body=file, headers=headers)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                reason = str(error)
                continue
            if answer.status < 300:
                return
            reason = f"the image API answered {answer.status}"
            if answer.status == 404:
                raise errors.NotFound(f"Image {image_id} was deleted while it was made.")
            if answer.status < 500:
                break
        raise errors.Unavailable(f"The image {image_id} could not be sent: {reason}.")

    def _fetch(self, image: ImageRef, part: Path) -> None:
        failures = 0
        while failures < TRIES:
            time.sleep(self._pause * min(failures, 5))
            before = _size(part)
            try:
                reason = self._go_on(image, part)
            except (urllib3.exceptions.HTTPError, ConnectionError) as error:
                reason = str(error)
            except OSError as error:
                raise ImageUnusable(f"Image {image.id} cannot be kept here: {error.strerror}.") from None
            if not reason:
                break
            log.warning("Image %s broke off after %d bytes: %s", image.id, _size(part), reason)
            failures = 0 if _size(part) > before else failures + 1
        else:
            raise ImageUnusable(f"Image {image.id} cannot be fetched: {reason}.")
        if image.sha512 is not None and _sha512(part) != image.sha512:
            part.unlink()
            raise ImageUnusable(f"Image {image.id} arrived with another hash than it has in the image service.")

    def _go_on(self, image: ImageRef, part: Path) -> str:
        """Fetch what is missing; returns why it is not all there, or nothing."""
        have = _size(part)
        headers = dict(self._headers)
        if have:
            headers["Range"] = f"bytes={have}-"
        answer = self._http.request("GET", f"{self._url}/disks/{image.id}", headers=headers, preload_content=False)
        try:
            if answer.status in (401, 403, 404):
                raise ImageUnusable(
                    f"Image {image.id} is no longer in the store."
                    if answer.status == 404
                    else f"The image service refuses image {image.id} to this host ({answer.status})."
                )
            if answer.status == 416:  # more than there is: not the beginning of this image
                part.unlink()
                return "it began otherwise"
            if answer.status not in (200, 206):
                return f"the image API answered {answer.status}"
            whole = _whole_size(answer)
            said = time.monotonic()
            with part.open("ab" if answer.status == 206 else "wb") as file:
                while piece := answer.read1(PIECE):
                    file.write(piece)
                    if time.monotonic() - said > SAY_SECONDS:
                        said = time.monotonic()
                        log.info("Image %s: %d of %s MiB", image.id, file.tell() >> 20, whole >> 20)
        finally:
            answer.release_conn()
        return "" if _size(part) == whole else f"{_size(part)} of {whole} bytes arrived"

    def _remove_old(self) -> None:
        for path in self._directory.iterdir():
            with suppress(FileNotFoundError):  # somebody else removes it, or is done with it
                if path.suffix != ".lock" and path.stat().st_mtime < time.time() - KEPT_SECONDS:
                    path.unlink(missing_ok=True)


def _whole_size(answer: urllib3.BaseHTTPResponse) -> int:
    if answer.status == 206:
        return int(answer.headers["Content-Range"].rpartition("/")[2])
    return int(answer.headers["Content-Length"])


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _sha512(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha512").hexdigest()
