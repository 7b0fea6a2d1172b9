"""/image/hosts: disk downloads and snapshot uploads of remote hosts.

A host authenticates with its name and secret (HTTP basic authentication). It may read only the images of its servers,
and upload only snapshots that one of its own operations creates.
"""

import re
from base64 import b64decode

from flask import Blueprint, Response, current_app, request
from sqlalchemy.orm import Session
from werkzeug.http import parse_range_header

from app.core import errors
from app.http.transfers import streamed
from app.security.secret_cipher import SecretCipher
from app.web.authentication import public
from app.web.context import clock, database, settings
from app.web.responses import empty
from compute_api.access import host_credentials
from compute_api.operations import image_access
from compute_api.operations import snapshots as operations_snapshots
from image_api.imports import snapshots
from image_api.models import Image
from image_api.routes.dependencies import store
from image_api.routes.files import drain_upload, read_upload, send_object
from image_api.routes.transfers import transfer_limiter
from image_api.states import ImageStatus
from image_api.stores.object_keys import disk_key

blueprint = Blueprint("host_images", __name__, url_prefix="/image/hosts")


@blueprint.get("/disks/<image_id>")
@public
def disk(image_id: str) -> Response:
    """Download a decompressed disk; supports Range."""
    with database().reading() as session:
        host = _authenticate_host(session)
        if not image_access.may_read(session, host, image_id):
            raise errors.Forbidden("No server on this host uses this image.")
    name, size = _find_disk(image_id)
    start, stop, status = 0, size, 200
    headers = {"Accept-Ranges": "bytes"}
    if requested := parse_range_header(request.headers.get("Range")):
        span = requested.range_for_length(size)
        if span is None:
            raise errors.RangeNotSatisfiable(f"The disk has {size} bytes.")
        (start, stop), status = span, 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    return send_object(name, (start, stop), (status, headers), f"host {host}")


@blueprint.put("/snapshots/<image_id>")
@streamed
@public
def snapshot(image_id: str) -> Response:
    """Upload the snapshot of a running operation. `Content-Digest` (RFC 9530) must contain its sha-512."""
    digest = re.fullmatch(r"sha-512=:([A-Za-z0-9+/]{86}==):", request.headers.get("Content-Digest", ""))
    if request.content_length is None or digest is None:
        raise errors.BadRequest("Content-Length or the sha-512 in Content-Digest is missing.")
    disk_format = request.args.get("disk_format", "qcow2")
    if disk_format not in ("qcow2", "raw"):
        raise errors.BadRequest("The disk_format of a snapshot must be qcow2 or raw.")
    sha512 = b64decode(digest[1]).hex()
    with database().reading() as session:
        host = _authenticate_host(session)
        operation = image_access.find_operation(session, host, image_id)
        expected = operations_snapshots.expected_snapshot(session, operation, disk_format, sha512)
        image = session.get(Image, image_id)
    if image is not None and image.status == ImageStatus.ACTIVE:  # a retry: the previous response was lost
        drain_upload()
        return empty()
    with transfer_limiter().slot(f"host {host}"):
        try:
            pieces = read_upload(request.content_length)
            snapshots.store_snapshot(database(), clock(), store(), expected, pieces, settings().image_quota_gib)
        except errors.SixstackError:
            drain_upload()
            raise
    return empty()


def _authenticate_host(session: Session) -> str:
    credentials = request.authorization
    if credentials is None or credentials.type != "basic":
        raise errors.Unauthorized("HTTP basic authentication with the host's name and secret is required.")
    return host_credentials.authenticate(session, _cipher(), credentials.username or "", credentials.password or "")


def _cipher() -> SecretCipher:
    cipher: SecretCipher | None = current_app.extensions.get("sixstack.host-seal")
    if cipher is None:
        cipher = current_app.extensions["sixstack.host-seal"] = SecretCipher(settings())
    return cipher


def _find_disk(image_id: str) -> tuple[str, int]:
    for name in (disk_key(image_id), image_id):
        try:
            return name, store().size(name)
        except FileNotFoundError:
            continue
    raise errors.NotFound(f"Image {image_id} has no data.")
