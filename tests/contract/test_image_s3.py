"""A cloud whose images live in object storage: uploaded, booted, deleted."""

import gzip
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.contract.conftest import Cloud, Key
from tests.host.support import TINY_IMAGE


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Clouds that are started after this keep their images here."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("SIXSTACK_IMAGE_STORE", f"s3://images/here?endpoint=http://{host}:{port}")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="images")
    try:
        yield client
    finally:
        client.close()
        server.stop()


def test_a_server_boots_from_an_image_in_object_storage(bucket: object, other_cloud: Cloud, key: Key) -> None:
    def names() -> set[str]:
        return {item["Key"] for item in bucket.list_objects_v2(Bucket="images").get("Contents", [])}

    before = names()
    assert len(before) == 1
    assert not (other_cloud.state / "images" / "store").exists()
    with other_cloud.connect() as connection:
        packed = gzip.compress(TINY_IMAGE.read_bytes(), 1)
        image = connection.create_image(
            "packed", data=packed, disk_format="qcow2", container_format="bare", wait=True, allow_duplicates=True
        )
        assert names() == before | {f"here/{image.id}", f"here/{image.id}.disk"}
        assert connection.image.download_image(image.id).content == packed
        server = connection.create_server("s3", image=image.id, flavor="tiny", key_name="key", wait=True, auto_ip=True)
        assert key.ssh(server.public_v6, "hostname").strip() == "s3"
        assert connection.delete_image(image.id, wait=True)
        assert names() == before
        assert connection.delete_server(server.id, wait=True)
