"""`sixstack image import FILE-or-URL`: uploads an image through the image API, with a progress bar.

Needs no OpenStack client; the credentials are those in `clouds.yaml` in the state directory. URLs are downloaded by
this command, not by the cloud, so they may be in any network that the operator can reach.
"""

import http.client
import json
import sys
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from app.commands.progress import Progress, mib
from app.core.errors import OperatorError, SixstackError
from app.core.settings import Settings
from image_api.imports.web_download import EgressPolicy, Network, fetch
from image_api.ingest.compression import MAGIC_BYTES, Decompression, detect_compression
from image_api.ingest.ingest import join_pieces, read_pieces

COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
SIGNATURES = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (0x8001, b"CD001", "iso"),
)
"""Offset, magic bytes, and Glance's name of the disk format."""
TIMEOUT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Source:
    """Image data to upload, a default name, and the length in bytes if it is known."""

    name: str
    pieces: Iterator[bytes]
    length: int | None


def run(settings: Settings, parsed: Namespace) -> int:
    """Upload the file or URL `parsed.source`. Raises OperatorError."""
    source = open_source(parsed.source)
    try:
        head = next(source.pieces, b"")
    except SixstackError as error:
        raise OperatorError(f"{parsed.source}: {error.message}") from None
    if not head:
        raise OperatorError(f"{parsed.source} is empty.")
    body: dict[str, Any] = {
        "name": parsed.name or source.name,
        "disk_format": parsed.disk_format or guess_disk_format(head),
        "container_format": "bare",
        "visibility": parsed.visibility,
        **_parse_properties(parsed.property),
    }
    if parsed.id:
        body["id"] = parsed.id
    cloud = ImageClient.log_in(settings.state / "clouds.yaml", parsed.cloud)
    image = cloud.call("POST", "/v2/images", body)
    try:
        progress = Progress(f"{body['name']} ({body['disk_format']})", source.length)
        cloud.upload(image["id"], _prepend(head, source.pieces), source.length, progress)
    except BaseException:
        with suppress(OperatorError):  # keep the first error
            cloud.call("DELETE", f"/v2/images/{image['id']}")
        raise
    made = cloud.call("GET", f"/v2/images/{image['id']}")
    sys.stdout.write(f"{made['id']}  {made['name']}  {made['status']}  {mib(made['size'])} MiB\n")
    return 0


def open_source(text: str) -> Source:
    """Open a file or URL. Raises OperatorError."""
    parts = urlsplit(text)
    if parts.scheme in ("http", "https"):
        everywhere: tuple[Network, ...] = EgressPolicy.from_settings("", "0.0.0.0/0,::/0", None).allowed
        try:
            download = fetch(text, EgressPolicy(frozenset(), everywhere))
        except SixstackError as error:
            raise OperatorError(f"{text}: {error.message}") from None
        name = PurePosixPath(unquote(parts.path)).name or parts.netloc
        return Source(_stem(name), join_pieces(download.pieces), download.length)
    if "://" in text:
        raise OperatorError(f"{text}: only http and https URLs are supported.")
    path = Path(text)
    try:
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise OperatorError(f"{text} cannot be read: {error.strerror}.") from None

    def pieces() -> Iterator[bytes]:
        with closing(file):
            yield from read_pieces(file.read)

    return Source(_stem(path.name), pieces(), path.stat().st_size if path.is_file() else None)


def guess_disk_format(head: bytes) -> str:
    """Return the disk format by the magic bytes, decompressed if necessary. The image API inspects the whole image."""
    if kind := detect_compression(head[:MAGIC_BYTES]):
        head = next(iter(Decompression(kind).feed(head)), b"")
    return next((name for at, magic, name in SIGNATURES if head[at : at + len(magic)] == magic), "raw")


@dataclass(frozen=True, slots=True)
class ImageClient:
    """Authenticated client of the image API."""

    url: str
    token: str

    @classmethod
    def log_in(cls, clouds: Path, name: str) -> "ImageClient":
        """Authenticate with a cloud entry of clouds.yaml. Raises OperatorError."""
        try:
            auth: dict[str, str] = yaml.safe_load(clouds.read_text())["clouds"][name]["auth"]
        except OSError:
            raise OperatorError(f"{clouds} does not exist; start the cloud with `sixstack up` first.") from None
        except KeyError:
            raise OperatorError(f"{clouds} has no cloud {name!r}.") from None
        user = {"name": auth["username"], "domain": {"id": auth["user_domain_id"]}, "password": auth["password"]}
        project = {"name": auth["project_name"], "domain": {"id": auth["project_domain_id"]}}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            }
        }
        base = auth["auth_url"].removesuffix("/identity/v3")
        with _send_request(f"{auth['auth_url']}/auth/tokens", "POST", body) as answer:
            return cls(f"{base}/image", answer.headers["X-Subject-Token"])

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request; returns the JSON response. Raises OperatorError with the error message of the API."""
        with _send_request(self.url + path, method, body, {"X-Auth-Token": self.token}) as response:
            content: dict[str, Any] = json.loads(response.read() or b"{}")
            return content

    def upload(self, image_id: str, pieces: Iterator[bytes], length: int | None, progress: Progress) -> None:
        """Upload the image data. Raises OperatorError with the error message of the API."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.netloc, timeout=3600)
        headers = {"X-Auth-Token": self.token, "Content-Type": "application/octet-stream", "Accept": "application/json"}
        if length is not None:
            headers["Content-Length"] = str(length)

        def counted() -> Iterator[bytes]:
            for piece in pieces:
                yield piece
                progress.advance(len(piece))

        try:
            path = f"{parts.path}/v2/images/{image_id}/file"
            connection.request("PUT", path, counted(), headers, encode_chunked=length is None)
            response = connection.getresponse()
            text = response.read()
        except SixstackError as error:
            raise OperatorError(error.message) from None
        except (OSError, http.client.HTTPException) as error:
            raise OperatorError(f"The upload was interrupted: {error}") from None
        finally:
            connection.close()
            progress.end()
        if response.status >= 300:
            raise OperatorError(_error_message(text))


def _send_request(
    url: str, method: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> http.client.HTTPResponse:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, dict(headers or {}), method=method)  # noqa: S310  our own cloud
    request.add_header("Content-Type", "application/json")
    request.add_header("Accept", "application/json")
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            raise OperatorError(_error_message(error.read())) from None
    except OSError as error:
        raise OperatorError(f"No response from {url}: {error}. Check that `sixstack up` is running.") from None
    return answer


def _error_message(text: bytes) -> str:
    try:
        body = json.loads(text)
        return str(body.get("message") or body["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return text.decode(errors="replace")[:500] or "The API returned an error without a message."


def _parse_properties(pairs: list[str] | None) -> dict[str, str]:
    properties = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise OperatorError(f"--property must be NAME=VALUE, not {pair!r}.")
        properties[name] = value
    return properties


def _stem(name: str) -> str:
    for ending in COMPRESSED_SUFFIXES:
        name = name.removesuffix(ending)
    return PurePosixPath(name).stem or name


def _prepend(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest
