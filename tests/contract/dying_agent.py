"""An agent process that claims an operation, prints `begun` and blocks until it is killed.

Reads one line of JSON from stdin: {"credential": …} for a remote host, or {"state": …} for a host that shares the
database.
"""

import json
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from compute_agent.credential import parse
from hypervisor.fake import FakeHypervisor
from tests.contract.test_dispatch_contract import LOCAL, local_agent, local_settings, remote_agent


def main() -> None:
    """Run the agent until the process is killed."""
    given = json.loads(sys.stdin.readline())

    def hold(method: str, _machine_id: str) -> None:
        if method == "ensure_running":
            print("begun", flush=True)
            threading.Event().wait()

    with ExitStack() as stack:
        if "state" in given:
            settings = local_settings(Path(given["state"]))
            local_agent(settings, FakeHypervisor(name=LOCAL, before=hold), stack)
        else:
            credential = parse(given["credential"])
            remote_agent(credential, None, FakeHypervisor(name=credential.name, before=hold), stack)
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
