"""Host liveness: a host is down when its last heartbeat is older than the heartbeat watermark minus 30 s.

Heartbeats of remote hosts arrive over the broker at the conductors, which advance the watermark. While no conductor
receives heartbeats (no conductor, broker or database), liveness is frozen: every host keeps its state. Afterwards each
host has 30 s to send one.

      received     │ not received │ 30 s: hosts keep state   │ received
      ─────────────┤              ├──────────────────────────┤ ────────►
                 until          since                      normal rule

Hosts that share the control plane's database write heartbeats themselves. Without remote hosts there is no watermark.
"""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from compute_api.models import HeartbeatWatermark

DOWN_AFTER = timedelta(seconds=30)
"""Age of the last heartbeat from which a host counts as down."""
WATERMARK_STALE_AFTER = timedelta(seconds=10)
"""Conductors advance the watermark every second; older than this, heartbeats are not being received."""
SETTLED_AFTER = timedelta(seconds=60)
"""Time after a gap in which outcomes from before it may still be reported."""


def down_before(session: Session, now: datetime) -> datetime:
    """Return the time before which a last heartbeat means that a host is down."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return now - DOWN_AFTER if found is None else _down_before(found, now)


def is_watermark_current(session: Session, now: datetime) -> bool:
    """Return whether heartbeats are being received."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return found is None or now - found.until <= WATERMARK_STALE_AFTER


def is_settled(session: Session, now: datetime) -> bool:
    """Return whether heartbeats have been received for long enough that earlier outcomes have been reported."""
    found = session.get(HeartbeatWatermark, HeartbeatWatermark.ONLY)
    return found is None or (now - found.until <= WATERMARK_STALE_AFTER and now - found.since >= SETTLED_AFTER)


def advance_watermark(session: Session, at: datetime | None) -> None:
    """Advance the watermark to a time up to which all heartbeats have been received; None leaves it unchanged.

    Locks the row until the transaction ends, which serializes the conductors' writes of heartbeats.
    """
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
    """Delete the watermark of an installation without a broker."""
    session.execute(delete(HeartbeatWatermark))


def _down_before(found: HeartbeatWatermark, now: datetime) -> datetime:
    until = now if now - found.until <= WATERMARK_STALE_AFTER else found.until
    return found.silent_before if until - found.since < DOWN_AFTER else until - DOWN_AFTER
