"""`sixstack host add|list|remove`: registration of remote compute hosts."""

import argparse
import re
import secrets
from urllib.parse import quote, urlsplit, urlunsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.commands.rabbitmq import Management
from app.core import installation
from app.core.clock import SystemClock
from app.core.errors import Conflict, OperatorError
from app.core.settings import Settings
from app.db.database import Database
from app.security.secret_cipher import SecretCipher
from compute_agent.credential import HostCredential
from compute_api.access import host_credentials
from compute_api.hosts import hosts, liveness
from compute_api.models import Server
from compute_api.operations import completion, host_removal
from compute_api.rpc import broker, topology
from image_api.stores.factory import make_store


def add(settings: Settings, parsed: argparse.Namespace) -> int:
    """Register a host with the broker and the image API; print its credential and the commands to run there."""
    name: str = parsed.name
    if not topology.NAME.fullmatch(name):
        raise OperatorError(f"A host name must be a DNS name, not {name!r}.")
    if settings.agent and name == settings.host_name:
        raise OperatorError(f"{name} is this computer, which already runs an agent.")
    url = _broker(settings)
    management = Management(settings.broker_management_url, url)
    chosen = installation.load(settings)
    password = secrets.token_urlsafe(32)
    with broker.connection(url, settings.broker_authority) as connection:
        try:
            broker.declare_host(connection.default_channel, name)
        except broker.CONNECTION_ERRORS as error:
            raise OperatorError(f"RabbitMQ does not answer at SIXSTACK_BROKER_URL: {error}.") from None
    management.add_user(name, password)
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    try:
        with database.transaction() as session:
            secret = host_credentials.create(session, SecretCipher(settings), SystemClock().now(), name)
    finally:
        database.dispose()
    parts = urlsplit(url)
    where = parts.netloc.rpartition("@")[2]
    credential = HostCredential(
        name=name,
        secret=secret,
        broker_url=urlunsplit(parts._replace(netloc=f"{quote(topology.broker_user(name))}:{password}@{where}")),
        api_url=parsed.api_url or _api_url(settings),
        installation=chosen,
        authority=_text(settings.broker_authority),
    )
    if parsed.only_credential:
        print(credential.document())
        return 0
    print(f"# On {name}, as root (repeat to renew its passwords):")
    print("sixstack agent join --state /var/lib/sixstack <<'END'")
    print(credential.document())
    print("END")
    print("sixstack agent --state /var/lib/sixstack --uplink eth0    # the interface towards the other hosts")
    return 0


def show(settings: Settings, _parsed: argparse.Namespace) -> int:
    """Print each host with its state and number of servers."""
    database = Database(settings.database)
    now = SystemClock().now()
    try:
        with database.reading() as session:
            counted = dict(
                session.execute(
                    select(Server.host, func.count()).where(Server.deleted.is_(False)).group_by(Server.host)
                ).all()
            )
            silent_before = liveness.down_before(session, now)
            for host in hosts.list_hosts(session):
                state = hosts.state(host, silent_before).lower()
                print(f"{host.name:24} {state:12} {counted.get(host.name, 0):5} servers")
    finally:
        database.dispose()
    return 0


def remove(settings: Settings, parsed: argparse.Namespace) -> int:
    """Deregister a host from the broker, the image API and the database; idempotent, so it can be repeated.

    The broker comes first: an interruption leaves no unlisted host with access to it.
    """
    name: str = parsed.name
    url = _broker(settings)
    management = Management(settings.broker_management_url, url)
    database = Database(settings.database, synchronous=settings.sqlite_synchronous)
    lost = 0
    try:
        with database.transaction() as session:
            _check_removable(session, name, force=parsed.force)
            known = host_removal.disable(session, name, "It is being removed") or host_credentials.is_registered(
                session, name
            )
        if not management.remove_user(name) and not known:
            raise OperatorError(f"There is no host {name}.")
        with broker.connection(url, settings.broker_authority) as connection:
            broker.remove_host(connection.default_channel, name)
        with database.transaction() as session:
            session.info[completion.IMAGE_STORE] = make_store(settings)
            host_credentials.remove(session, name)
            if parsed.force:
                lost = host_removal.abandon_servers(session, SystemClock().now(), name)
            host_removal.delete_record(session, name)
    finally:
        database.dispose()
    print(f"{name} is removed. Its guests keep running until they are stopped there: sixstack agent down --servers")
    if lost:
        print(f"{_servers(lost)} that it had {'is' if lost == 1 else 'are'} in ERROR; their owners can delete them.")
    return 0


def _check_removable(session: Session, name: str, *, force: bool) -> None:
    now = SystemClock().now()
    if force:
        if hosts.may_be_alive(session, now, name):
            raise OperatorError(
                f"{name} is not known to be down, and its servers would be lost: stop its agent and wait until "
                "`sixstack host list` shows it as down, or force it down: openstack compute service set --down "
                f"{name} nova-compute"
            )
        return
    try:
        host_removal.check_empty(session, name)
    except Conflict:
        count = session.scalar(select(func.count()).where(Server.host == name, Server.deleted.is_(False))) or 0
        what = _servers(count) if count else "migrations or operations in progress"
        raise OperatorError(
            f"{name} has {what}: delete its servers or migrate them to other hosts first. If the host is lost, "
            "evacuate the servers to keep; `--force` sets the others to ERROR."
        ) from None


def _servers(count: int) -> str:
    return "1 server" if count == 1 else f"{count} servers"


def _broker(settings: Settings) -> str:
    if settings.broker_url is None:
        raise OperatorError("Remote hosts require a broker: set SIXSTACK_BROKER_URL (docs/many-hosts.md).")
    return settings.broker_url


def _api_url(settings: Settings) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host, port = settings.address
    if re.fullmatch(r"127\..*|::1|localhost", host):
        raise OperatorError(
            f"The API listens at {settings.listen}, which other computers cannot reach: set SIXSTACK_PUBLIC_URL or "
            "--api-url."
        )
    if host in ("0.0.0.0", "::"):  # noqa: S104
        raise OperatorError("The URL of the API for hosts is unknown: set SIXSTACK_PUBLIC_URL or --api-url.")
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _text(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path) as file:
        return file.read()
