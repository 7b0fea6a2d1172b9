"""Failure campaign: random faults while users take servers through their life; then everything must be consistent.

    python -m tests.chaos.run --seconds 120 --seed 7

Checked afterwards: no server is stuck in a task, each server in ERROR has a reason, all can be deleted, and then no
guest, link, rule, machine directory, port, operation, quota usage or image of a snapshot is left. On failure it
prints the seed and keeps the log.
"""

import argparse
import logging
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from openstack.connection import Connection

from tests.chaos.faults import Faults, mount_disk, unmount
from tests.chaos.users import User
from tests.contract.conftest import Cloud, free_port
from tests.host.support import TINY_IMAGE, traces, why_no_host

DISK_GIB = 20
USERS = 3
REST_SECONDS = 300


class Inconsistent(Exception):
    """The cloud did not get back to a consistent state."""


def main() -> int:
    """Exit status 1 when anything is inconsistent, 77 when this machine cannot run guests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--verbose", action="store_true", help="print each fault")
    arguments = parser.parse_args()
    if (reason := why_no_host()) is not None:
        print(reason)
        return 77
    logging.getLogger("keystoneauth").setLevel(logging.CRITICAL)  # clients fail all the time here
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 31)
    place = Path(tempfile.mkdtemp(prefix="sixstack-chaos-")) / "disk"
    mount_disk(place, DISK_GIB)
    cloud = Cloud(place / "state", f"127.0.0.1:{free_port()}", options=["--accelerator", "tcg"])
    try:
        run(cloud, arguments.seconds, seed, print if arguments.verbose else _ignore)
    except Exception as error:
        kept = Path(tempfile.gettempdir()) / f"sixstack-chaos-{seed}.log"
        shutil.copy(cloud.log, kept)
        print(f"FAILED with --seed {seed}: {error}\nThe log of the cloud: {kept}")
        return 1
    finally:
        cloud.kill()
        try:
            cloud.up()
            cloud.down("--servers")
        finally:
            unmount(place)
            shutil.rmtree(place.parent, ignore_errors=True)
    print("consistent")
    return 0


def run(cloud: Cloud, seconds: float, seed: int, print_line: Callable[[str], None]) -> None:
    """Raises Inconsistent, or what keeps the cloud from running."""
    print(f"{seconds:.0f} s of faults with --seed {seed}", flush=True)
    cloud.up()
    with cloud.connect("sixstack-admin") as admin:
        admin.create_image(
            "tiny",
            data=TINY_IMAGE.read_bytes(),
            disk_format="qcow2",
            container_format="bare",
            visibility="public",
            wait=True,
        )
    faults = Faults(cloud, seed, print_line)
    users = [User(cloud, number, seed) for number in range(USERS)]
    for thread in (*users, faults):
        thread.start()
    time.sleep(seconds)
    faults.stop()
    for user in users:
        user.stop()
    for user in users:
        user.join(120)
    if faults.error is not None:
        raise faults.error
    counts: Counter[str] = sum((user.counts for user in users), Counter())
    print("requests: " + ", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    print("faults: " + ", ".join(f"{name} {number}" for name, number in sorted(faults.counts.items())), flush=True)
    if problems := [problem for user in users for problem in user.problems]:
        raise Inconsistent("answers that no fault excuses:\n" + "\n".join(problems[:10]))
    check(cloud)


def check(cloud: Cloud) -> None:
    """Everything is at rest, explained and deletable, and nothing is left afterwards. Raises Inconsistent."""
    cloud.down()
    cloud.up()
    with cloud.connect() as user, cloud.connect("sixstack-admin") as admin:
        _until(
            lambda: [f"{s.name} {s.status} {s.task_state}" for s in _servers(user) if s.task_state is not None],
            "in a task",
        )
        found = _servers(user)
        print(
            "servers: " + ", ".join(f"{number} {status}" for status, number in Counter(s.status for s in found).items())
        )
        for reason, number in Counter(_reason(s) for s in found if s.status == "ERROR").items():
            print(f"  {number} in ERROR: {reason}")
        silent = [server.id for server in found if server.status == "ERROR" and not (server.fault or {}).get("message")]
        if silent:
            raise Inconsistent(f"servers in ERROR without a reason: {silent}")
        for server in found:
            user.compute.delete_server(server.id, ignore_missing=True)
        _until(lambda: [f"{s.name} {s.status} {s.task_state}" for s in _servers(user)], "not deleted")
        for image in list(user.image.images(owner=user.current_project_id)):
            user.image.delete_image(image.id, ignore_missing=True)
        limits = user.compute.get_limits().absolute
        used = {"instances": limits.instances_used, "cores": limits.total_cores_used, "ram": limits.total_ram_used}
        if any(used.values()):
            raise Inconsistent(f"quota usage without servers: {used}")
        if ports := [port.id for port in admin.network.ports()]:
            raise Inconsistent(f"ports without servers: {ports}")
    _until(lambda: traces_of_guests(cloud), "left on the host")
    cloud.down()
    if rows := unfinished_rows(cloud.state):
        raise Inconsistent(f"unfinished operations: {rows}")
    stored = [path.name for path in (cloud.state / "images" / "store").iterdir()]
    if len(stored) != 1:
        raise Inconsistent(f"one image exists, the store has {stored}")


def traces_of_guests(cloud: Cloud) -> list[str]:
    """Links, rules, processes and files of machines; the cloud's own processes are not among them."""
    return [trace for trace in traces(cloud.installation, cloud.state) if "guest=" in trace or "process" not in trace]


def unfinished_rows(state: Path) -> list[tuple[Any, ...]]:
    """Operations that are neither done, failed nor superseded."""
    (path,) = state.rglob("sixstack.db")
    with sqlite3.connect(path) as database:
        query = "SELECT id, task, state FROM operations WHERE state IN ('queued', 'running')"
        return database.execute(query).fetchall()


def _reason(server: Any) -> str:
    """The fault's message without ids."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "…", str((server.fault or {}).get("message", "")))


def _servers(user: Connection) -> list[Any]:
    return list(user.compute.servers())


def _until(remaining: Callable[[], list[str]], what: str) -> None:
    deadline = time.monotonic() + REST_SECONDS
    while found := remaining():
        if time.monotonic() > deadline:
            raise Inconsistent(f"{what} after {REST_SECONDS} s: {found}")
        time.sleep(0.5)


def _ignore(_line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
