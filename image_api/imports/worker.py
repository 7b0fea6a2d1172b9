"""Does the imports: a thread in each API process, which needs nothing but the database to know what to do."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from uuid import uuid4

from app.core.clock import Clock
from app.core.errors import BadRequest, SixstackError, TooLarge
from app.db.database import Database
from image_api import images
from image_api.imports import imports, uploads
from image_api.imports.web_download import Reach, fetch
from image_api.ingest.ingest import Limits, Stored, ingest, pieces_of_iterator
from image_api.models import Image
from image_api.stores.file import Store
from image_api.stores.object_keys import disk_object, staged_object, upload_object

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
LONGEST_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Job:
    """One import, as much of it as is needed without a session."""

    task_id: str
    image_id: str
    method: str
    uri: str
    declared: str
    owner: str


class ImportWorker:
    """`nudge` after a commit; `start` in a process that serves. Without a thread, `run_once` does one import."""

    def __init__(
        self, database: Database, store: Store, clock: Clock, reach: Reach, limits: Callable[[int], Limits]
    ) -> None:
        self._database, self._store, self._clock, self.reach, self._limits = database, store, clock, reach, limits
        self._id = str(uuid4())
        self._wake = Event()
        self._stopping = False
        self._thread: Thread | None = None

    def start(self) -> None:
        """Look for work now, when nudged, and now and then."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="image-imports", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread once it is done with what it is at."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def nudge(self) -> None:
        """There may be work."""
        self._wake.set()

    def run_once(self) -> bool:
        """Do one import, if there is one. It never raises for what is the import's fault."""
        now = self._clock.now()
        with self._database.reading() as session:
            if not imports.waiting(session, now):
                return False
        with self._database.transaction() as session:
            task = imports.claim(session, self._id, now)
            if task is None:
                return False
            image = session.get(Image, task.image_id)
            declared, owner = (image.disk_format or "", image.owner) if image else ("", task.owner)
            job = Job(task.id, task.image_id, task.method, task.uri or "", declared, owner)
        try:
            stored = self._carry_out(job)
            with self._database.transaction() as session:
                image = session.get(Image, job.image_id)
                if stored and image:
                    images.check_quota(session, image, stored, self._limits(0))
                imports.succeed(session, job.task_id, self._id, stored, self._clock.now())
        except imports.Lost:
            self._forget_if_gone(job.image_id)
        except Exception as error:
            if not isinstance(error, SixstackError):
                log.exception("import %s of image %s failed", job.task_id, job.image_id)
            reason = error.message if isinstance(error, SixstackError) else "An unexpected error happened here."
            self._give_up(job, reason)
        return True

    def _carry_out(self, job: Job) -> Stored | None:
        if job.method == "glance-direct":
            staged, final = staged_object(job.image_id), upload_object(job.image_id)
            self._store.rename(disk_object(staged), disk_object(final))
            self._store.rename(staged, final)
            self._check_there(job.image_id)
            return None
        alive = imports.renewal(self._database, self._clock, job.task_id, self._id)
        with self._database.reading() as session:
            bounds = self._limits(images.used_bytes(session, job.owner))
        download = fetch(job.uri, self.reach)
        free = self._store.free_bytes()
        if download.length is not None and (
            download.length > bounds.object_bytes or (free is not None and download.length > free)
        ):
            raise TooLarge(f"The image has {download.length} bytes, which is more than fits or is allowed.")
        pieces = pieces_of_iterator(self._in_time(download.pieces, alive))
        return ingest(pieces, self._store, upload_object(job.image_id), job.declared, bounds)

    def _check_there(self, image_id: str) -> None:
        with self._database.reading() as session:
            image = session.get(Image, image_id)
        try:
            size = self._store.size(upload_object(image_id))
        except FileNotFoundError:
            size = None
        if image is not None and size != image.size:
            raise BadRequest("The staged data are no longer there.")

    def _in_time(self, pieces: Iterator[bytes], alive: Callable[[], None]) -> Iterator[bytes]:
        """Every piece as it comes, however few bytes it has."""
        end = time.monotonic() + LONGEST_SECONDS
        for piece in pieces:
            alive()
            if time.monotonic() > end:
                raise TooLarge("The download took longer than a day.")
            yield piece

    def _give_up(self, job: Job, reason: str) -> None:
        with self._database.reading() as session:
            ours = imports.is_ours(session, job.task_id, self._id)
        if ours:
            images.discard(self._store, job.image_id)
        with suppress(imports.Lost), self._database.transaction() as session:
            imports.fail(session, job.task_id, self._id, reason, self._clock.now())
        self._forget_if_gone(job.image_id)

    def _forget_if_gone(self, image_id: str) -> None:
        with self._database.reading() as session:
            gone = session.get(Image, image_id) is None
        if gone:
            images.discard(self._store, image_id)

    def _run(self) -> None:
        while not self._stopping:
            try:
                while not self._stopping and self.run_once():
                    pass
                self._tidy()
            except Exception:  # the database may be away; it comes back
                log.exception("imports cannot go on just now")
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

    def _tidy(self) -> None:
        """Claims on uploads that nobody renewed, and imports that ended long ago."""
        now = self._clock.now()
        with self._database.reading() as session:
            stale = uploads.any_expired(session, now) or imports.any_old(session, now)
        if stale:
            with self._database.transaction() as session:
                uploads.take_back_expired(session, now)
                imports.forget_old(session, now)
