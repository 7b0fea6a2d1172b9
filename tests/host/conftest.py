"""Fixtures of tests on a real host."""

from tests.host.support import blank_image, make_host, namespace, ssh_key, tiny_image

__all__ = ["blank_image", "make_host", "namespace", "ssh_key", "tiny_image"]
