"""shade 1.33: life cycle of a server in a running cloud, in a separate process (`test_shade.py`).

Usage: shade_life.py CLOUDS_YAML. shade was last released in 2020: replacements for `inspect.getargspec`, which Python
3.11 removed, and for `netifaces`, used for the default gateway only, are installed before shade is imported.
"""

import inspect
import os
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from types import ModuleType
from typing import Any

ArgSpec = namedtuple("ArgSpec", "args varargs keywords defaults")
AF_INET6 = 10


def prepare_python() -> None:
    """Install replacements for modules and functions that shade imports and this Python lacks."""
    vars(inspect)["getargspec"] = lambda function: ArgSpec(*inspect.getfullargspec(function)[:4])
    netifaces = ModuleType("netifaces")
    vars(netifaces).update(AF_INET6=AF_INET6, gateways=lambda: {"default": {AF_INET6: ()}})
    sys.modules["netifaces"] = netifaces


def wait_until(look: Callable[[], bool], *, seconds: float = 120) -> None:
    """Return once `look` is true; raise TimeoutError when it never is."""
    until = time.monotonic() + seconds
    while not look():
        if time.monotonic() > until:
            raise TimeoutError("the guest did not boot")
        time.sleep(0.2)


def live(cloud: Any) -> None:
    """Create, find, image, stop, start and delete a server; each call waits for its end."""
    network = cloud.get_network("public")
    assert network.name == "public"
    key = cloud.create_keypair("shade")
    server = cloud.create_server(
        "shade", image="tiny", flavor="tiny", network="public", key_name="shade", auto_ip=True, wait=True, timeout=240
    )
    assert server.status == "ACTIVE"
    assert server.interface_ip == server.public_v6 == server.accessIPv6
    assert [port.device_id for port in cloud.list_ports({"device_id": server.id})] == [server.id]
    assert cloud.get_server("shade").id in [one.id for one in cloud.list_servers()]
    wait_until(lambda: "TINY:" in cloud.get_server_console(server))
    image = cloud.create_image_snapshot("shade-snapshot", server, wait=True, timeout=240)
    assert image.status == "active"
    assert cloud.delete_image(image.id, wait=True)
    assert cloud.list_floating_ips() == []
    assert cloud.list_security_groups() == []
    assert cloud.list_volumes() == []
    assert cloud.get_compute_limits().total_instances_used == 1
    assert cloud.delete_server(server.id, wait=True, timeout=120)
    assert cloud.get_server("shade") is None
    assert cloud.delete_keypair(key.name)


def main() -> None:
    os.environ["OS_CLIENT_CONFIG_FILE"] = sys.argv[1]
    prepare_python()
    import shade

    live(shade.openstack_cloud(cloud="sixstack"))
    print("shade: done")


if __name__ == "__main__":
    main()
