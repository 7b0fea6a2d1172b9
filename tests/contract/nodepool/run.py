"""nodepool's OpenStack adapter against a running cloud: `make nodepool` (after `make demo`).

Runs in a separate virtual environment because of nodepool's many dependencies; imports no code of this project. Uses
the provider of the README. Launches a node, lists it with quota and metadata, connects to it, and deletes it.
"""

import argparse
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

README = Path(__file__).parents[3] / "README.md"
PATIENCE_SECONDS = 180
LOG = logging.getLogger("nodepool-contract")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="the state directory of the cloud, with clouds.yaml")
    parser.add_argument("work", type=Path, help="where nodepool's configuration may be written")
    asked = parser.parse_args()
    os.environ["OS_CLIENT_CONFIG_FILE"] = str(asked.state / "clouds.yaml")
    logging.basicConfig(level=logging.WARNING)
    # Imported late: they read clouds.yaml when imported, and are installed in nodepool's environment only.
    from nodepool import config as nodepool
    from nodepool.driver.openstack.adapter import OpenStackAdapter

    path = asked.work / "nodepool.yaml"
    path.write_text(configuration())
    config = nodepool.loadConfig(str(path))
    provider = config.providers["sixstack"]
    adapter = OpenStackAdapter(provider)
    try:
        check(adapter, provider.pools["main"].labels["tiny"])
    finally:
        adapter.stop()
    print("nodepool: launched, listed, reached, deleted.")
    return 0


def configuration() -> str:
    """Return the README's provider with its label, and a ZooKeeper address that is never used."""
    found = re.search(r"(?m)^    (providers:\n(?:    .*\n)+)", README.read_text())
    if found is None:
        raise SystemExit("the README has no providers for nodepool")
    provider = re.sub(r"(?m)^    ", "", found[1])
    return f"labels:\n  - name: tiny\nzookeeper-servers:\n  - host: nowhere.invalid\n{provider}"


def check(adapter: Any, label: Any) -> None:
    """Launch, list, connect to and delete one node."""
    limits = adapter.getQuotaLimits()
    print("limits", limits)
    metadata = {"nodepool_provider_name": "sixstack", "nodepool_node_id": "0000000001", "nodepool_pool_name": "main"}
    creating = adapter.getCreateStateMachine("np0000000001", label, None, metadata, None, None, LOG)
    began = time.monotonic()
    instance = finish(creating)
    try:
        print(f"launched in {time.monotonic() - began:.1f} s: {instance.interface_ip}")
        assert instance.public_ipv6, "a node has a public address"
        listed = {one.external_id: one for one in adapter.listInstances()}
        mine = listed[creating.external_id]
        assert mine.metadata["nodepool_node_id"] == "0000000001"
        assert mine.metadata["groups"] == "sixstack,tiny,tiny"
        assert mine.getQuotaInformation() is not None
        wait(lambda: reached(instance.public_ipv6))
    finally:
        finish(adapter.getDeleteStateMachine(creating.external_id, LOG))
    wait(lambda: creating.external_id not in {one.external_id for one in adapter.listInstances()})


def finish(machine: Any) -> Any:
    """Advance a state machine until it is complete, as nodepool's launcher does."""
    last: list[Any] = []

    def advance() -> bool:
        last[:] = [machine.advance()]
        return bool(machine.complete)

    wait(advance)
    return last[0]


def reached(address: str) -> bool:
    """Return whether the node accepts SSH connections."""
    try:
        with socket.create_connection((address, 22), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def wait(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit("timeout: nodepool's condition is not met")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
