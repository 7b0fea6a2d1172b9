"""`sixstack status`: prints the state of the installation."""

from collections import Counter

from sqlalchemy import func, select

from app.core import installation, processes
from app.core.clock import SystemClock
from app.core.settings import Settings
from app.db.database import Database
from app.dns import status as dns_status
from app.supervisor import find_url
from compute_api.states import OPEN_OPERATION_STATES


def show(settings: Settings) -> int:
    """Print the status. Returns 0 when the cloud answers, else 1."""
    from compute_api.hosts import hosts, liveness
    from compute_api.models import Operation, Server
    from compute_api.states import status

    chosen = installation.load(settings)
    pid = processes.read_pid_file(settings.state / "up.pid")
    database = Database(settings.database)
    try:
        with database.reading() as session:
            rows = session.execute(select(Server.vm_state, Server.task_state).where(Server.deleted.is_(False)))
            servers_by_status = Counter(status(*row) for row in rows)
            operations = session.scalar(
                select(func.count()).select_from(Operation).where(Operation.state.in_(OPEN_OPERATION_STATES))
            )
            all_hosts = hosts.list_hosts(session)
            now = SystemClock().now()
            silent_before = liveness.down_before(session, now)
    finally:
        database.dispose()
    url = find_url(settings)
    up = pid is not None and url is not None
    print(f"cloud       {f'answers at {url}, process {pid}' if up else 'down: `sixstack up` starts it'}")
    print(f"state       {settings.state.absolute()}, installation {chosen.id}")
    print(f"network     {chosen.prefix}, VNIs from {chosen.vni_base}, MTU {chosen.mtu}")
    if up and (dns_summary := dns_status.summary(settings, now)) is not None:
        print(f"dns         {dns_summary}")
    for host in all_hosts:
        alive = "up" if hosts.is_up(host, silent_before) else "down"
        reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
        print(f"host        {host.name}: {alive}, accelerator {host.accelerator}{reason}")
        print(
            f"            {host.vcpus_used}/{host.vcpus_limit} vCPUs, {host.memory_mib_used}/{host.memory_mib_limit} "
            f"MiB memory, {host.disk_gib_used}/{host.disk_gib_limit} GiB disk claimed"
        )
    counts = ", ".join(f"{number} {name}" for name, number in sorted(servers_by_status.items())) or "none"
    print(f"servers     {counts}; {operations} operations in progress")
    print(f"credentials {settings.state / 'clouds.yaml'} (clouds sixstack and sixstack-admin)")
    return 0 if up else 1
