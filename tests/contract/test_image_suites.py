"""openstacksdk's functional tests of images and the applicable tests of tempest, against an API without hosts."""

import re
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.contract.identity_cloud import IdentityCloud, identity_cloud
from tests.contract.suites import EACH, run_sdk, run_tempest, tempest_environment


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without logging requests."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def image_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty qcow2, for imports."""
    directory = tmp_path_factory.mktemp("web")
    create = ["qemu-img", "create", "-q", "-f", "qcow2", directory / "empty.qcow2", "1M"]
    subprocess.run(create, check=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/empty.qcow2"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityCloud]:
    """An API process that may import from loopback."""
    work = tmp_path_factory.mktemp("image")
    with identity_cloud(work, image_import_allow="127.0.0.0/8", image_import_ports="") as made:
        yield made


SDK = ("openstack.tests.functional.image.v2", "openstack.tests.functional.cloud.test_image")
SDK_EXCLUDED = {"TestMetadef": "there are no metadata definitions"}


def test_openstacksdks_own_functional_tests_pass(cloud: IdentityCloud) -> None:
    (cloud.work / "CONTRIBUTING.rst").write_text("It uploads this file, from the directory it runs in.\n")
    config = OpenStackConfig(config_files=[str(cloud.clouds_yaml)], load_envvars=False)
    with Connection(config=config.get_one(cloud="sixstack-admin")) as admin:
        admin.create_image("small", data=b"x", disk_format="raw", container_format="bare", visibility="public")
    environment = {**cloud.environment, "OPENSTACKSDK_IMAGE": "small"}
    assert re.search(r"\b1[0-9] passed", run_sdk(SDK, SDK_EXCLUDED, environment, cloud.work))


V2 = "tempest.api.image.v2"
TEMPEST = (
    f"{V2}.admin.test_images",
    f"{V2}.test_images",
    f"{V2}.test_images_member",
    f"{V2}.test_images_member_negative",
    f"{V2}.test_images_negative",
    f"{V2}.test_images_tags",
    f"{V2}.test_images_tags_negative",
    f"{V2}.test_versions",
)
TEMPEST_EXCLUDED = {
    f"{V2}.admin.test_image_caching": "the API keeps images itself, and has no cache",
    f"{V2}.admin.test_image_task": "a task is made by importing an image, not by itself",
    f"{V2}.admin.test_images_metadefs_*": "there are no metadata definitions",
    f"{V2}.test_images_metadefs_schema": "there are no metadata definitions",
    f"{V2}.test_images_dependency": "it needs servers: `make tempest` runs it",
    f"{V2}.test_images_formats": "it needs files that are not in tempest; tests of our own make such files",
}
"""Excluded modules and the reason. Tempest reports the reasons of tests that it skips itself."""


def test_tempests_image_tests_pass(cloud: IdentityCloud, image_url: str) -> None:
    settings = {
        "service_available": {"neutron": "false", "nova": "false"},
        "image": {"http_image": image_url, "http_qcow2_image": image_url},
        "image-feature-enabled": {"os_glance_reserved": "true"},
    }
    output = run_tempest(cloud, tempest_environment(cloud, settings), TEMPEST, EACH)
    assert re.search(r"^[2-9][0-9] passed, 0 failed, 0 errors", output, re.MULTILINE), output
