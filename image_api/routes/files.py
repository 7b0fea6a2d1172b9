"""/v2/images/{id}/file and /stage: streaming upload and download of image data."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime

from flask import Blueprint, Response, g, request
from werkzeug.datastructures import Range
from werkzeug.exceptions import ClientDisconnected
from werkzeug.http import parse_range_header

from app.core import errors
from app.core.numbers import parse_integer
from app.http.transfers import Upload, make_download, streamed
from app.web.context import clock, database
from app.web.policy import require
from app.web.responses import empty
from image_api import images
from image_api.imports import uploads
from image_api.ingest.ingest import EmptyUpload, StoredContent, read_pieces
from image_api.models import Image
from image_api.routes.dependencies import find_image, store, upload_limits
from image_api.routes.transfers import transfer_limiter
from image_api.states import STORED, ImageStatus
from image_api.stores.object_keys import staged_key, upload_key

blueprint = Blueprint("image_files", __name__, url_prefix="/image/v2/images/<image_id>")

DRAIN_BYTES = 64 << 20
"""Bytes of a refused upload to read before responding: most clients read the response only after sending all data."""


@blueprint.put("/file")
@streamed
@require("upload_image")
def upload(image_id: str) -> Response:
    with transfer_limiter().slot(g.caller.project):
        return _receive(image_id, ImageStatus.SAVING, upload_key(image_id), images.set_active)


@blueprint.put("/stage")
@streamed
@require("modify_image")
def stage(image_id: str) -> Response:
    """Stage an upload. It is inspected and hashed now, so that the response reports a refused image."""
    with transfer_limiter().slot(g.caller.project):
        return _receive(image_id, ImageStatus.UPLOADING, staged_key(image_id), images.record_content)


def _receive(
    image_id: str, status: ImageStatus, name: str, done: Callable[[Image, StoredContent, datetime], None]
) -> Response:
    expected = _expected_bytes()
    with database().transaction() as session:
        image = find_image(session, image_id, "upload_image")
        bounds = upload_limits(images.used_bytes(session, image.owner))
        _check_space(expected, bounds.object_bytes)
        writer = uploads.claim(session, image, status, clock().now())
        claimed = uploads.UploadClaim(image_id, writer, name, image.disk_format or "")
    try:
        uploads.store_upload(database(), clock(), store(), claimed, read_upload(expected), bounds, done)
    except EmptyUpload:
        return empty()  # `openstack image create` without a file sends an empty body; the image stays queued
    except errors.SixstackError:
        drain_upload()
        raise
    return empty()


@blueprint.get("/file")
@require("download_image")
def download(image_id: str) -> Response:
    with database().reading() as session:
        image = find_image(session, image_id, "download_image")
    if image.status == ImageStatus.DEACTIVATED and not g.caller.is_admin:
        raise errors.Forbidden("The requested image has been deactivated. Image data download is forbidden.")
    if image.status not in STORED:
        return empty()
    size = image.size or 0
    headers = {"Content-MD5": image.checksum or "", "Accept-Ranges": "bytes"}
    start, stop, status = 0, size, 200
    if "Range" in request.headers:
        start, stop = _byte_range(parse_range_header(request.headers["Range"]), size)
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        del headers["Content-MD5"]
        status = 206
    headers["Content-Length"] = str(stop - start)
    if request.method == "HEAD":
        return Response(None, status, headers, content_type="application/octet-stream")
    return send_object(upload_key(image_id), (start, stop), (status, headers), g.caller.project)


def send_object(name: str, span: tuple[int, int], head: tuple[int, dict[str, str]], owner: str) -> Response:
    """Return a streaming response with byte range `span` of an object and the status and headers in `head`.

    Raises Unavailable when too many transfers are in progress, FileNotFoundError.
    """
    start, stop = span
    release = transfer_limiter().acquire(owner)
    try:
        pieces = store().read(name, start, stop - start)
    except BaseException:
        release()
        raise
    body = make_download(pieces, stop - start, release)
    return Response(body, *head, content_type="application/octet-stream", direct_passthrough=True)


def read_upload(expected: int | None) -> Iterator[bytes]:
    """Read the request body. Raises BadRequest when it is incomplete."""
    count = 0
    try:
        for piece in read_pieces(request.stream.read):
            count += len(piece)
            yield piece
    except (ClientDisconnected, OSError) as error:
        raise errors.BadRequest(f"The upload broke off after {count} bytes.") from error
    if expected is not None and count != expected:
        raise errors.BadRequest(f"The upload broke off: {count} of {expected} bytes arrived.")


def drain_upload() -> None:
    """Read up to `DRAIN_BYTES` of the remaining request body before responding with an error."""
    body = request.environ["wsgi.input"]
    if isinstance(body, Upload):
        body.drain_bytes = DRAIN_BYTES  # read by the event loop after this thread has finished
        return
    left = DRAIN_BYTES
    with suppress(Exception):  # the client is gone
        while left > 0 and (piece := request.stream.read(1 << 20)):
            left -= len(piece)


def _expected_bytes() -> int | None:
    """Return the length of the body as announced by the client, if any. Raises UnsupportedMedia, BadRequest."""
    if request.mimetype != "application/octet-stream":
        raise errors.UnsupportedMedia("Image data must be application/octet-stream.")
    if request.content_length is not None:
        return request.content_length
    if request.environ.get("SERVER_PROTOCOL", "").startswith("HTTP/2"):
        drain_upload()
        raise errors.BadRequest("Over HTTP/2, image data must have a Content-Length.")
    text = request.headers.get("X-OpenStack-Image-Size", "")
    try:
        return max(parse_integer(text), 0) if text else None
    except ValueError:
        return None


def _check_space(expected: int | None, most: int) -> None:
    if expected is not None and expected > most:
        raise errors.QuotaExceeded(
            f"Request exceeds image size quota: the image has {expected} bytes, {most} are allowed."
        )
    free = store().free_bytes()
    if free is not None and expected is not None and expected > free:
        raise errors.TooLarge("The image storage of this cloud is full: the image does not fit.")


def _byte_range(asked: Range | None, size: int) -> tuple[int, int]:
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        raise errors.RangeNotSatisfiable("The Range header must have exactly one range of bytes.")
    found = asked.range_for_length(size)
    if found is None:
        headers = {"Content-Range": f"bytes */{size}"}
        raise errors.RangeNotSatisfiable(f"The image has {size} bytes.", headers=headers)
    return found
