"""`sixstack status`: what runs here, on one screen."""

from collections import Counter

from sqlalchemy import func, select

from app.core import installation, processes
from app.core.clock import SystemClock
from app.core.settings import Settings
from app.db.database import Database
from app.dns import status as dns_status
from app.supervisor import find_url


def show(settings: Settings) -> int:
    """Print it; returns 0 when the cloud answers, else 1."""
    from compute_api.hosts import hosts, liveness
    from compute_api.models import Operation, Server
    from compute_api.states import status

    chosen = installation.load(settings)
    pid = processes.read_pid_file(settings.state / "up.pid")
    database = Database(settings.database)
    try:
        with database.reading() as session:
            rows = session.execute(select(Server.vm_state, Server.task_state).where(Server.deleted.is_(False)))
            counted = Counter(status(*row) for row in rows)
            waiting = session.scalar(
                select(func.count()).select_from(Operation).where(Operation.state.in_(("queued", "running")))
            )
            known = hosts.list_hosts(session)
            now = SystemClock().now()
            silent_before = liveness.down_before(session, now)
    finally:
        database.dispose()
    url = find_url(settings)
    up = pid is not None and url is not None
    print(f"cloud       {f'answers at {url}, process {pid}' if up else 'down: `sixstack up` starts it'}")
    print(f"state       {settings.state.absolute()}, installation {chosen.id}")
    print(f"network     {chosen.prefix}, VNIs from {chosen.vni_base}, MTU {chosen.mtu}")
    if up and (kept := dns_status.summary(settings, now)) is not None:
        print(f"names       {kept}")
    for host in known:
        alive = "up" if hosts.is_up(host, silent_before) else "down"
        reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
        print(f"host        {host.name}: {alive}, accelerator {host.accelerator}{reason}")
        print(
            f"            {host.vcpus_used}/{host.vcpus_limit} vCPUs, {host.memory_mib_used}/{host.memory_mib_limit} "
            f"MiB memory, {host.disk_gib_used}/{host.disk_gib_limit} GiB disk claimed"
        )
    shown = ", ".join(f"{number} {name}" for name, number in sorted(counted.items())) or "none"
    print(f"servers     {shown}; {waiting} operations under way")
    print(f"credentials {settings.state / 'clouds.yaml'} (clouds sixstack and sixstack-admin)")
    return 0 if up else 1
