"""Populates a cloud: creates the first servers through the domain and copies them inside PostgreSQL."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import text, update
from sqlalchemy.orm import Session

from app.core.settings import Settings
from app.db.database import Database
from benchmarks import cloud
from benchmarks.fleet import copies
from compute_api import quotas
from compute_api.hosts import hosts
from hypervisor.fake import FakeHypervisor
from identity_api.assignments import grants
from identity_api.assignments.grants import Grant
from identity_api.directory import projects
from identity_api.directory.bootstrap import DEFAULT_DOMAIN
from identity_api.models import Role, User
from image_api.models import Image
from image_api.states import Visibility

SMALL = 20
"""Number of small projects, with a thousandth of the servers each, which the polling benchmark lists."""
FIRST = 1000
"""Maximum number of servers of the middle project that the domain creates."""
SAY_SECONDS = 5.0


@dataclass(frozen=True)
class Size:
    """Size of the cloud; `deleted` servers are additional."""

    hosts: int
    servers: int
    deleted: int
    projects: int

    def of_projects(self) -> list[int]:
        """Return the servers per project: a tenth, a hundredth, SMALL times a thousandth, and the rest."""
        sizes = [self.servers // 10, max(self.servers // 100, 1), *[max(self.servers // 1000, 1)] * SMALL]
        others = max(self.projects - len(sizes), 1)
        left = self.servers - sum(sizes)
        return sizes + [left // others + (at < left % others) for at in range(others)]


@dataclass(frozen=True)
class Filled:
    """Contents of the cloud: projects with their number of servers, in the order of `Size.of_projects`; an image."""

    size: Size
    projects: Sequence[tuple[str, int]]
    image_id: str

    @property
    def largest(self) -> tuple[str, int]:
        return self.projects[0]

    @property
    def middle(self) -> tuple[str, int]:
        return self.projects[1]

    @property
    def small(self) -> Sequence[tuple[str, int]]:
        return self.projects[2 : 2 + SMALL]


def fill(settings: Settings, size: Size) -> Iterator[str | Filled]:
    """Populate the cloud; yields progress messages, and finally the contents."""
    database = Database(settings.database)
    sizes = size.of_projects()
    with database.transaction() as session:
        ids = _projects(session, len(sizes))
        for number in range(size.hosts - 1):  # `populate` creates one host
            hosts.register(session, datetime.now(UTC), FakeHypervisor(name=f"host-{number:04}").describe(), settings)
    yield f"{size.hosts} hosts, {len(ids)} projects"
    first = min(sizes[1], FIRST)
    image_id = cloud.populate(settings, ids[1], first)
    yield f"{first} servers through the domain"
    with database.transaction() as session:
        session.execute(update(Image).values(visibility=Visibility.PUBLIC))
        copies.prepare(session, ids[1])
        done, said = first, time.monotonic()
        for at, (project_id, wanted) in enumerate(zip(ids, sizes, strict=True)):
            done += copies.make(session, project_id, wanted - (first if at == 1 else 0))
            copies.make(session, project_id, size.deleted * wanted // size.servers, gone=True)
            if time.monotonic() - said > SAY_SECONDS:
                yield f"{done} servers"
                said = time.monotonic()
        copies.count(session)
    with database.reader.connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
    database.dispose()
    yield f"{done} servers and about {size.deleted} deleted ones"
    yield Filled(size, tuple(zip(ids, sizes, strict=True)), image_id)


def _projects(session: Session, count: int) -> list[str]:
    """Create projects without quotas that the demo user is a member of; returns their ids."""
    member = session.query(Role).filter_by(name="member").one()
    user = session.query(User).filter_by(name="demo").one()
    ids = []
    for number in range(count):
        made = projects.create(session, datetime.now(UTC), name=f"project-{number:03}", domain_id=DEFAULT_DOMAIN)
        place = Grant(actor_kind="user", actor_id=user.id, target_kind="project", target_id=made.id)
        grants.assign_role(session, place, member)
        ids.append(made.id)
    quotas.set_limits(session, quotas.DEFAULT_PROJECT, {"instances": -1, "cores": -1, "ram": -1})
    return ids
