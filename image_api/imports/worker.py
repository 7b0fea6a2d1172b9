"""Import worker: a thread in each API process that executes import tasks from the database."""

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
from image_api.imports.web_download import EgressPolicy, fetch
from image_api.ingest.ingest import Limits, StoredContent, ingest, join_pieces
from image_api.models import Image
from image_api.stores.file import Store
from image_api.stores.object_keys import disk_key, staged_key, upload_key

log = logging.getLogger(__name__)

POLL_SECONDS = 10.0
DOWNLOAD_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Job:
    """The properties of a claimed import task, detached from the session."""

    task_id: str
    image_id: str
    method: str
    uri: str
    declared: str
    owner: str


class ImportWorker:
    """Executes import tasks in a thread (`start`) or synchronously (`run_once`). Call `nudge` after a commit."""

    def __init__(
        self,
        database: Database,
        store: Store,
        clock: Clock,
        egress_policy: EgressPolicy,
        limits: Callable[[int], Limits],
    ) -> None:
        self._database, self._store, self._clock, self.egress_policy, self._limits = (
            database,
            store,
            clock,
            egress_policy,
            limits,
        )
        self._id = str(uuid4())
        self._wake = Event()
        self._stopping = False
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread. It polls at start, when nudged, and every POLL_SECONDS."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="image-imports", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread after its current import."""
        self._stopping = True
        self._wake.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def nudge(self) -> None:
        """Wake up the thread to poll for tasks."""
        self._wake.set()

    def run_once(self) -> bool:
        """Execute one import, if any. Errors of the import are recorded in its task and not raised."""
        now = self._clock.now()
        with self._database.reading() as session:
            if not imports.has_claimable(session, now):
                return False
        with self._database.transaction() as session:
            task = imports.claim(session, self._id, now)
            if task is None:
                return False
            image = session.get(Image, task.image_id)
            declared, owner = (image.disk_format or "", image.owner) if image else ("", task.owner)
            job = Job(task.id, task.image_id, task.method, task.uri or "", declared, owner)
        try:
            stored = self._execute(job)
            with self._database.transaction() as session:
                image = session.get(Image, job.image_id)
                if stored and image:
                    images.check_quota(session, image, stored, self._limits(0))
                imports.succeed(session, job.task_id, self._id, stored, self._clock.now())
        except imports.ClaimLost:
            self._clean_up_deleted(job.image_id)
        except Exception as error:
            if not isinstance(error, SixstackError):
                log.exception("Import %s of image %s failed", job.task_id, job.image_id)
            reason = error.message if isinstance(error, SixstackError) else "Unexpected error in the image service."
            self._fail(job, reason)
        return True

    def _execute(self, job: Job) -> StoredContent | None:
        if job.method == "glance-direct":
            staged, final = staged_key(job.image_id), upload_key(job.image_id)
            self._store.rename(disk_key(staged), disk_key(final))
            self._store.rename(staged, final)
            self._check_staged(job.image_id)
            return None
        renew = imports.make_renewal(self._database, self._clock, job.task_id, self._id)
        with self._database.reading() as session:
            bounds = self._limits(images.used_bytes(session, job.owner))
        download = fetch(job.uri, self.egress_policy)
        free = self._store.free_bytes()
        if download.length is not None and (
            download.length > bounds.object_bytes or (free is not None and download.length > free)
        ):
            raise TooLarge(f"The image has {download.length} bytes, more than the quota or the free space allows.")
        pieces = join_pieces(self._with_deadline(download.pieces, renew))
        return ingest(pieces, self._store, upload_key(job.image_id), job.declared, bounds)

    def _check_staged(self, image_id: str) -> None:
        with self._database.reading() as session:
            image = session.get(Image, image_id)
        try:
            size = self._store.size(upload_key(image_id))
        except FileNotFoundError:
            size = None
        if image is not None and size != image.size:
            raise BadRequest("The staged data no longer exists.")

    def _with_deadline(self, pieces: Iterator[bytes], renew: Callable[[], None]) -> Iterator[bytes]:
        """Yield pieces unbuffered; renew the claim and check the deadline for each."""
        end = time.monotonic() + DOWNLOAD_SECONDS
        for piece in pieces:
            renew()
            if time.monotonic() > end:
                raise TooLarge("The download took longer than 24 hours.")
            yield piece

    def _fail(self, job: Job, reason: str) -> None:
        with self._database.reading() as session:
            is_claimed = imports.holds_claim(session, job.task_id, self._id)
        if is_claimed:
            images.delete_objects(self._store, job.image_id)
        with suppress(imports.ClaimLost), self._database.transaction() as session:
            imports.fail(session, job.task_id, self._id, reason, self._clock.now())
        self._clean_up_deleted(job.image_id)

    def _clean_up_deleted(self, image_id: str) -> None:
        with self._database.reading() as session:
            is_deleted = session.get(Image, image_id) is None
        if is_deleted:
            images.delete_objects(self._store, image_id)

    def _run(self) -> None:
        while not self._stopping:
            try:
                while not self._stopping and self.run_once():
                    pass
                self._expire_claims()
            except Exception:  # such as a temporary failure of the database
                log.exception("import worker failed, retrying in %g s", POLL_SECONDS)
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _expire_claims(self) -> None:
        """Release expired upload claims and delete tasks past their retention time."""
        now = self._clock.now()
        with self._database.reading() as session:
            has_expired = uploads.has_expired(session, now) or imports.has_expired(session, now)
        if has_expired:
            with self._database.transaction() as session:
                uploads.release_expired(session, now)
                imports.delete_expired(session, now)
