"""Shutdown of all guests of this host, for `sixstack down --servers`. Disks stay."""

from concurrent.futures import ThreadPoolExecutor

from app.core.settings import Settings
from compute_agent.host_config import RESTART_MARK
from hypervisor.api.errors import HypervisorError
from hypervisor.api.protocol import Hypervisor
from hypervisor.api.spec import MachineState

GRACE_SECONDS = 10.0


def end_machines(hypervisor: Hypervisor, settings: Settings) -> int:
    """Press the power buttons, kill what is left after the grace period, and remove links and radvd; returns how many
    ran.

    Leaves a mark, so that the next `up` restarts the guests instead of reporting them shut off. Raises HypervisorError,
    after trying all guests, when one cannot be stopped.
    """
    hypervisor.repair_processes()
    running = [one.id for one in hypervisor.reports() if one.state not in (MachineState.SHUTOFF, MachineState.ABSENT)]
    if running:
        (settings.state / RESTART_MARK).touch()
    with ThreadPoolExecutor(8) as pool:
        ended = [pool.submit(hypervisor.ensure_stopped, one, grace_seconds=GRACE_SECONDS) for one in running]
    failures = [str(error) for one in ended if (error := one.exception()) is not None]
    if failures:
        raise HypervisorError("; ".join(failures))
    hypervisor.close_down()
    return len(running)
