"""An agent in a process of its own that never ends what it has begun; it says `begun`, and waits to be killed.

Reads one line of JSON: the {"credential": …} of a host on another computer, or the {"state": …} shared with the API.
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
    """Work until killed."""
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
