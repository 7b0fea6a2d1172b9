"""Image store in S3-compatible object storage, shared by several API servers (extra `s3`).

Objects are written as multipart uploads, which become visible when complete. Credentials are boto3's:
AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from app.core.errors import OperatorError
from image_api.stores.file import READ_BYTES, StoreFull

PART_BYTES = 16 << 20
"""Size of the first `GROW_EVERY` parts. S3 allows 10,000 parts, 156 GiB at this size, so later parts are larger."""
GROW_EVERY = 1000
PARALLEL_PARTS = 2
FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "EntityTooLarge", "XMinioStorageFull"})
GONE = frozenset({"NoSuchKey", "404", "NotFound"})


class S3Store:
    """Image store in one bucket, under a key prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix

    @classmethod
    def connect(cls, url: str) -> "S3Store":
        """Open the store at s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME. Raises OperatorError."""
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme != "s3" or not parts.netloc or set(options) - {"endpoint", "region"}:
            raise OperatorError(
                f"SIXSTACK_IMAGE_STORE must be s3://BUCKET/PREFIX?endpoint=URL&region=NAME, not {url!r}."
            )
        client = boto3.client(
            "s3",
            endpoint_url=options.get("endpoint"),
            region_name=options.get("region", "us-east-1"),
            config=Config(
                s3={"addressing_style": "path" if "endpoint" in options else "auto"},
                retries={"mode": "standard", "max_attempts": 5},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        prefix = parts.path.strip("/")
        return cls(client, parts.netloc, f"{prefix}/" if prefix else "")

    def writer(self, name: str, *, sparse: bool = False) -> "S3Writer":  # noqa: ARG002
        return S3Writer(self._client, self._bucket, self._prefix + name)

    def read(self, name: str, start: int, length: int) -> Iterator[bytes]:
        if length == 0:
            return iter(())
        try:
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._prefix + name, Range=f"bytes={start}-{start + length - 1}"
            )
        except ClientError as error:
            raise _translate_error(error) from error
        return _read_body(answer["Body"])

    def size(self, name: str) -> int:
        try:
            return int(self._client.head_object(Bucket=self._bucket, Key=self._prefix + name)["ContentLength"])
        except ClientError as error:
            raise _translate_error(error) from error

    def delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def rename(self, name: str, new: str) -> None:
        source = {"Bucket": self._bucket, "Key": self._prefix + name}
        try:
            self._client.copy(source, self._bucket, self._prefix + new, Config=TransferConfig(use_threads=False))
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                return
            raise _translate_error(error) from error
        self.delete(name)

    def names(self) -> Iterable[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            for item in page.get("Contents", []):
                yield item["Key"].removeprefix(self._prefix)

    def local_path(self, name: str) -> Path | None:  # noqa: ARG002
        return None

    def free_bytes(self) -> int | None:
        return None

    def remove_abandoned_parts(self) -> None:
        """Do nothing: writers may run on other machines. A lifecycle rule of the bucket aborts incomplete uploads."""


class S3Writer:
    """Writer of a multipart upload with parts of at least 16 MiB, two of them in flight."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client, self._target = client, {"Bucket": bucket, "Key": key}
        self._buffer = bytearray()
        self._parts: list[Future[dict[str, Any]]] = []
        self._pool = ThreadPoolExecutor(PARALLEL_PARTS)
        self._upload_id: str | None = None

    def write(self, piece: bytes) -> None:
        self._buffer += piece
        if len(self._buffer) >= PART_BYTES * (1 + len(self._parts) // GROW_EVERY):
            self._send()

    def commit(self) -> None:
        if self._upload_id is None:
            self._call(self._client.put_object, Body=bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        parts = [part.result() for part in self._parts]
        self._call(self._client.complete_multipart_upload, UploadId=self._upload_id, MultipartUpload={"Parts": parts})
        self._upload_id = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._upload_id is not None:
            self._client.abort_multipart_upload(**self._target, UploadId=self._upload_id)

    def _send(self) -> None:
        if self._upload_id is None:
            self._upload_id = self._call(self._client.create_multipart_upload)["UploadId"]
        body, self._buffer = bytes(self._buffer), bytearray()
        if len(self._parts) >= PARALLEL_PARTS:
            self._parts[-PARALLEL_PARTS].result()  # bounds the parts in memory; raises their errors
        number = len(self._parts) + 1
        self._parts.append(self._pool.submit(self._part, number, body))

    def _part(self, number: int, body: bytes) -> dict[str, Any]:
        answer = self._call(self._client.upload_part, UploadId=self._upload_id, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _call(self, method: Any, **arguments: Any) -> Any:
        try:
            return method(**self._target, **arguments)
        except ClientError as error:
            raise _translate_error(error) from error


def _read_body(body: Any) -> Iterator[bytes]:
    try:
        while piece := body.read(READ_BYTES):
            yield piece
    finally:
        body.close()


def _translate_error(error: ClientError) -> Exception:
    code = error.response["Error"]["Code"]
    if code in FULL:
        return StoreFull(code)
    if code in GONE:
        return FileNotFoundError(code)
    return RuntimeError(f"Object storage request failed: {error}")
