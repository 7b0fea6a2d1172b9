"""Whether anybody hears what hosts say, and so from which silence on a host counts as down.

Hosts on other computers are heard over the broker by desks. While no desk is there, or none hears the broker, or none
reaches the database, nobody knows which hosts live: then all stay what they were, and once hosts are heard again each
has as long as ever to say that it lives.

      heard        │ nobody hears │ 30 s: whoever was up     │ heard
      ─────────────┤              ├──────────────────────────┤ ────────►
                 until          since    has time to be heard

Hosts that share the control plane's database need nobody who listens; where there are only such, no row says anything.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from compute_api.models import HeartbeatWatermark

DOWN_AFTER = timedelta(seconds=30)
"""A host not heard of for so long, while hosts were heard, counts as down."""
WATERMARK_STALE_AFTER = timedelta(seconds=10)
"""Desks say every second that they hear. After so long without it nobody does."""
SETTLED_AFTER = timedelta(seconds=60)
"""So long after nobody was heard there may still be reports of what was done before."""


def down_before(session: Session, now: datetime) -> datetime:
    """A host that was last heard of before then is down."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return now - DOWN_AFTER if found is None else _down_before(found, now)


def is_watermark_current(session: Session, now: datetime) -> bool:
    """Whether a host's silence means anything just now."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return found is None or now - found.until <= WATERMARK_STALE_AFTER


def is_settled(session: Session, now: datetime) -> bool:
    """Whether hosts have been heard for so long that what they did before has been reported."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return found is None or (now - found.until <= WATERMARK_STALE_AFTER and now - found.since >= SETTLED_AFTER)


def advance_watermark(session: Session, at: datetime | None) -> None:
    """Everything that hosts had said at that time has arrived; None is no news. Of several desks the others wait here
    until the one that was first has committed, with what it writes of hosts."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY, with_for_update=True)
    if at is None:
        return
    if found is None:
        session.add(HeartbeatWatermark(id=HeartbeatWatermark.ONLY, until=at, since=at, silent_before=at - DOWN_AFTER))
    elif at > found.until:
        if at - found.until > WATERMARK_STALE_AFTER:
            found.silent_before = _down_before(found, found.until)
            found.since = at
        found.until = at
    session.flush()


def remove_watermark(session: Session) -> None:
    """There is no broker: every host speaks for itself."""
    session.execute(delete(HeartbeatWatermark))


def _down_before(found: HeartbeatWatermark, now: datetime) -> datetime:
    until = now if now - found.until <= WATERMARK_STALE_AFTER else found.until
    return found.silent_before if until - found.since < DOWN_AFTER else until - DOWN_AFTER
