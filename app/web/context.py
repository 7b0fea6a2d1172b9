"""What every route may reach for: the database, the settings, the clock, the caller."""

from dataclasses import dataclass
from typing import cast

from flask import current_app, g

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database


@dataclass(frozen=True, slots=True)
class Parts:
    """What all services share. Services keep parts of their own under names of their own in `app.extensions`."""

    settings: Settings
    database: Database
    clock: Clock


def parts() -> Parts:
    return cast(Parts, current_app.extensions["sixstack"])


def database() -> Database:
    return parts().database


def settings() -> Settings:
    return parts().settings


def clock() -> Clock:
    return parts().clock


def caller() -> Caller:
    """The authenticated caller of this request."""
    return cast(Caller, g.caller)
