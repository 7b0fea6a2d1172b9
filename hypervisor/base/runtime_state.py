"""What is kept of one run of a machine, from a start of qemu to its end."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from hypervisor.base.paths import MachinePaths, write


@dataclass(frozen=True)
class RuntimeState:
    """What is true of one run of a machine only: accelerator, time of start, slot of each port, main board,
    and whether it has consoles."""

    accelerator: str | None
    started_at: datetime
    slots: dict[str, int]
    machine_type: str = "q35"
    consoles: bool = False

    def save(self, paths: MachinePaths) -> None:
        """Let it be the machine's present run."""
        write(paths.runtime_state, json.dumps({**asdict(self), "started_at": self.started_at.timestamp()}).encode())


def load_runtime_state(paths: MachinePaths) -> RuntimeState:
    """The present or last run."""
    try:
        document = json.loads(paths.runtime_state.read_bytes())
        started_at = datetime.fromtimestamp(document["started_at"], UTC)
        slots, machine_type = document.get("slots", {}), document.get("machine_type", "q35")
        return RuntimeState(document["accelerator"], started_at, slots, machine_type, document.get("consoles", False))
    except (FileNotFoundError, ValueError, KeyError):
        return RuntimeState(None, datetime.fromtimestamp(0, UTC), {})
