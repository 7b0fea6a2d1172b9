"""Images in S3 object storage: upload, boot, delete.

The server is moto, unless SIXSTACK_TEST_S3 is the URL of another server; its credentials are in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY. docs/object-storage.md has an example with Ceph.
"""

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.contract.conftest import Cloud, Key
from tests.host.support import TINY_IMAGE


@contextmanager
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of an S3 server."""
    if url := os.environ.get("SIXSTACK_TEST_S3"):
        yield url
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@dataclass(frozen=True)
class Bucket:
    """A bucket that is deleted after the test."""

    client: Any
    name: str

    def names(self) -> set[str]:
        return {item["Key"] for item in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A new bucket; clouds started after this fixture store their images in it."""
    with endpoint(monkeypatch) as url:
        made = Bucket(boto3.client("s3", endpoint_url=url, region_name="us-east-1"), f"images-{uuid4()}")
        made.client.create_bucket(Bucket=made.name)
        monkeypatch.setenv("SIXSTACK_IMAGE_STORE", f"s3://{made.name}/here?endpoint={url}")
        try:
            yield made
        finally:
            for name in made.names():
                made.client.delete_object(Bucket=made.name, Key=name)
            made.client.delete_bucket(Bucket=made.name)
            made.client.close()


def test_a_server_boots_from_an_image_in_object_storage(bucket: Bucket, other_cloud: Cloud, key: Key) -> None:
    before = bucket.names()
    assert len(before) == 1
    assert not (other_cloud.state / "images" / "store").exists()
    with other_cloud.connect() as connection:
        packed = gzip.compress(TINY_IMAGE.read_bytes(), 1)
        image = connection.create_image(
            "packed", data=packed, disk_format="qcow2", container_format="bare", wait=True, allow_duplicates=True
        )
        assert bucket.names() == before | {f"here/{image.id}", f"here/{image.id}.disk"}
        assert connection.image.download_image(image.id).content == packed
        server = connection.create_server("s3", image=image.id, flavor="tiny", key_name="key", wait=True, auto_ip=True)
        assert key.ssh(server.public_v6, "hostname").strip() == "s3"
        assert connection.delete_image(image.id, wait=True)
        assert bucket.names() == before
        assert connection.delete_server(server.id, wait=True)
