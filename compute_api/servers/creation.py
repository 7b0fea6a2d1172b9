"""Server creation: claims quota and hosts, creates ports and rows, and queues the spawn operations."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy.orm import Session

from app.core import errors
from app.core.caller import Caller
from compute_api import keypairs, quotas, system_metadata
from compute_api.faults import mark_failed
from compute_api.flavors import extra_specs, flavors
from compute_api.hosts import hosts
from compute_api.models import Flavor, KeyPair, Server, ServerGroup
from compute_api.operations import operations
from compute_api.scheduler import claims, scheduling, server_groups
from compute_api.servers import servers
from compute_api.states import SPAWN, PowerState, TaskState, VmState
from image_api.models import Image
from network_api.models import Network
from network_api.resources import networks, ports


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRequest:
    """A requested interface: a network with an optional address, or an existing port."""

    network_id: str | None = None
    address: str | None = None
    port_id: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewServer:
    """Fields of a create request (POST /servers)."""

    name: str
    flavor_id: str
    image_id: str
    networks: Literal["auto", "none"] | tuple[NetworkRequest, ...] = "auto"
    key_name: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str | None = None
    hostname: str | None = None
    user_data: str | None = None
    files: tuple[dict[str, str], ...] = ()
    """Files that the guest writes at first boot: `path`, and `contents` in base64."""
    admin_pass: str | None = None
    disk_config: str = "MANUAL"
    access_ipv4: str = ""
    access_ipv6: str = ""
    zone: str | None = None
    host: str | None = None
    forced: bool = False
    """The scheduler checks nothing but free resources of `host`."""
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    group_id: str | None = None
    ephemeral_gib: tuple[int | None, ...] = ()
    swap_mib: tuple[int, ...] = ()
    min_count: int = 1
    max_count: int = 1


@dataclass(frozen=True, slots=True)
class CreatedServers:
    """Created servers, with the password that is returned once."""

    servers: list[Server]
    admin_pass: str
    reservation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _References:
    """The rows that a create request refers to. A network of None belongs to a request for an existing port."""

    flavor: Flavor
    image: Image
    key: KeyPair | None
    networks: list[tuple[Network | None, NetworkRequest]]
    group: ServerGroup | None


def create(session: Session, now: datetime, caller: Caller, new: NewServer, request_id: str) -> CreatedServers:
    """Create servers: claim quota and hosts, create ports and rows, queue the operations that build the machines.

    A server for which no host has room is created in ERROR, with a fault that names the reason. Raises BadRequest,
    Conflict, QuotaExceeded.
    """
    project_id = caller.require_project()
    limits = quotas.limits(session, project_id)
    references = _find_references(session, caller, new, limits)
    count = _claim_quota(session, caller, new, references.flavor, limits)
    if references.group:
        server_groups.check_members(session, references.group, count)
    created = CreatedServers([], new.admin_pass or secrets.token_urlsafe(9), f"r-{secrets.token_hex(4)}")
    for index in range(count):
        server = _build_row(now, caller, new, references, index)
        server.admin_pass, server.reservation_id = created.admin_pass, created.reservation_id
        scheduling.store_hints(
            server,
            host=new.host,
            forced=new.forced,
            same_host=new.same_host,
            different_host=new.different_host,
        )
        _schedule(session, now, server)
        _create_ports(session, now, caller, server, references.networks)
        session.add(server)  # only when complete: one INSERT without an UPDATE
        operations.begin_action(session, now, server, SPAWN.name, request_id, caller.user_id)
        if server.host:
            operations.queue(session, now, server, SPAWN.task, request_id, {})
        else:
            operations.end_action(session, now, server.id, request_id, server.fault["message"])
        created.servers.append(server)
    session.flush()
    return created


def _find_references(session: Session, caller: Caller, new: NewServer, limits: Mapping[str, int]) -> _References:
    """Find and check everything that the request refers to. Raises BadRequest, QuotaExceeded."""
    flavor = _find_flavor(session, caller, new.flavor_id)
    extra_specs.check_supported(flavor.extra_specs, flavor.vcpus)
    image = servers.find_usable_image(session, caller, new.image_id, flavor)
    key = _find_key(session, caller, new.key_name)
    requested_networks = _find_networks(session, caller, new)
    quotas.check_metadata(limits, new.metadata)
    quotas.check_files(limits, new.files)
    if new.host and not new.forced and not hosts.is_known(session, new.host):
        raise errors.BadRequest(f"Compute host {new.host} could not be found.")
    if new.zone and not hosts.is_zone(session, new.zone):
        raise errors.BadRequest(f"The requested availability zone is not available: {new.zone}")
    group = _find_group(session, caller, new.group_id)
    return _References(flavor=flavor, image=image, key=key, networks=requested_networks, group=group)


def _claim_quota(session: Session, caller: Caller, new: NewServer, flavor: Flavor, limits: Mapping[str, int]) -> int:
    """Claim quota for at least `min_count` servers and return their number. Raises QuotaExceeded."""
    project_id = caller.require_project()
    count = quotas.claim(
        session,
        project_id,
        limits,
        instances=new.max_count,
        cores=flavor.vcpus,
        ram=flavor.ram,
        at_least=new.min_count,
    )
    allowed = claims.within_user_limits(
        session, project_id, caller.user_id, servers.flavor_copy(flavor), count=count, at_least=new.min_count
    )
    if excess := count - allowed:
        quotas.add(session, project_id, instances=-excess, cores=-excess * flavor.vcpus, ram=-excess * flavor.ram)
    return allowed


def _build_row(now: datetime, caller: Caller, new: NewServer, references: _References, index: int) -> Server:
    flavor, image, key, group = references.flavor, references.image, references.key, references.group
    suffix = "" if new.max_count == 1 else f"-{index + 1}"
    name, server_id = f"{new.name}{suffix}", str(uuid4())
    server = Server(
        id=server_id,
        project_id=caller.require_project(),
        user_id=caller.user_id,
        name=name,
        description=new.description,
        hostname=f"{new.hostname}{suffix}" if new.hostname else sanitize_hostname(name, server_id),
        flavor=servers.flavor_copy(flavor),
        flavor_id=flavor.id,
        image=servers.image_copy(image),
        image_id=image.id,
        key={"name": key.name, "type": key.type, "data": key.public_key} if key else {},
        user_data=new.user_data,
        metadata_=new.metadata,
        tags=sorted(set(new.tags)),
        config_drive=True,
        disk_config=new.disk_config,
        launch_index=index,
        availability_zone=new.zone or "",
        pinned_zone=new.zone,
        vm_state=VmState.BUILDING,
        task_state=TaskState.SPAWNING,
        power_state=PowerState.NOSTATE,
        generation=1,
        locked=False,
        access_ipv4=new.access_ipv4,
        access_ipv6=new.access_ipv6,
        fault={},
        system_metadata=_blank_disks(flavor, new),
        created_at=now,
        updated_at=now,
        deleted=False,
        group_id=group.id if group else None,
        revision=0,
    )
    if new.files:
        system_metadata.FILES.set(server, list(new.files))
    return server


def sanitize_hostname(name: str, server_id: str) -> str:
    """Derive a hostname from a server's name as Nova does: one label of RFC 1123, at most 63 characters."""
    label = re.sub(r"[^a-z0-9-]+", "", re.sub(r"[\s_.]", "-", name.lower())).strip("-")
    return label[:63].rstrip("-") or f"Server-{server_id}"


def _blank_disks(flavor: Flavor, new: NewServer) -> dict[str, Any]:
    """Return the requested blank disks, which replace the flavor's. Raises BadRequest when they exceed the flavor."""
    chosen: dict[str, Any] = {}
    if new.ephemeral_gib:
        sizes = [size or flavor.ephemeral for size in new.ephemeral_gib]
        if sum(sizes) > flavor.ephemeral or min(sizes) < 1:
            raise errors.BadRequest(
                "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block "
                "device mapping, flavor ephemeral size will be used."
            )
        chosen["ephemeral_gib"] = sizes
    if new.swap_mib:
        if len(new.swap_mib) > 1:
            raise errors.BadRequest("More than one swap drive requested.")
        if new.swap_mib[0] > flavor.swap:
            raise errors.BadRequest("Swap drive requested is larger than instance type allows.")
        chosen["swap_mib"] = new.swap_mib[0] or flavor.swap
    return {system_metadata.BLANK.name: chosen} if chosen else {}


def _find_flavor(session: Session, caller: Caller, flavor_id: str) -> Flavor:
    try:
        return flavors.find(session, caller, flavor_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None


def _find_key(session: Session, caller: Caller, name: str | None) -> KeyPair | None:
    if name is None:
        return None
    try:
        return keypairs.find(session, caller.user_id, name)
    except errors.NotFound:
        raise errors.BadRequest("Invalid key_name provided.") from None


def _find_networks(session: Session, caller: Caller, new: NewServer) -> list[tuple[Network | None, NetworkRequest]]:
    """Find the requested networks; None for an existing port. Raises BadRequest."""
    if new.networks == "none":
        return []
    if new.networks == "auto" or not new.networks:
        return [(networks.default_network(session, caller), NetworkRequest())]
    requested: list[tuple[Network | None, NetworkRequest]] = []
    for request in new.networks:
        assert not isinstance(request, str)
        if request.port_id:
            if new.max_count > 1:
                raise errors.BadRequest("Unable to launch multiple instances with a single configured port ID.")
            requested.append((None, request))
            continue
        if request.address and new.max_count > 1:
            raise errors.BadRequest("Unable to launch multiple instances with a single fixed IP address.")
        try:
            requested.append((networks.find(session, caller, request.network_id or ""), request))
        except errors.NotFound as error:
            raise errors.BadRequest(error.message) from None
    return requested


def _find_group(session: Session, caller: Caller, group_id: str | None) -> ServerGroup | None:
    if group_id is None:
        return None
    try:
        return server_groups.find(session, caller, group_id)
    except errors.NotFound as error:
        raise errors.BadRequest(error.message) from None


def _schedule(session: Session, now: datetime, server: Server) -> None:
    if scheduling.claim_host(session, now, server, server.pinned_zone) is None:
        mark_failed(server, now, scheduling.explain_no_host(session, now, server, server.pinned_zone))
        server.task_state = None


def _create_ports(
    session: Session,
    now: datetime,
    caller: Caller,
    server: Server,
    requested: Sequence[tuple[Network | None, NetworkRequest]],
) -> None:
    owner = f"compute:{server.availability_zone or 'nova'}"
    for network, request in requested:
        if network is None:
            assert request.port_id is not None
            try:
                port = ports.bind(session, now, request.port_id, caller, device_id=server.id, host=server.host)
            except errors.NotFound as error:
                raise errors.BadRequest(error.message) from None
        else:
            port = ports.create(
                session,
                now,
                ports.NewPort(
                    project_id=server.project_id,
                    network=network,
                    device_id=server.id,
                    device_owner=owner,
                    host=server.host,
                    address=request.address,
                ),
                chooser=caller,
            )
        system_metadata.tag_nic(server, port.id, request.tag)
        if not server.access_ipv6 and port.ip_address:
            server.access_ipv6 = port.ip_address
