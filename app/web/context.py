"""Accessors for the shared dependencies of routes: settings, database, clock, and the caller of the request."""

from dataclasses import dataclass
from typing import cast

from flask import current_app, g

from app.core.caller import Caller
from app.core.clock import Clock
from app.core.settings import Settings
from app.db.database import Database


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Dependencies that all services share. Services store their own in `app.extensions` under their own names."""

    settings: Settings
    database: Database
    clock: Clock


def dependencies() -> Dependencies:
    return cast(Dependencies, current_app.extensions["sixstack"])


def database() -> Database:
    return dependencies().database


def settings() -> Settings:
    return dependencies().settings


def clock() -> Clock:
    return dependencies().clock


def caller() -> Caller:
    """The authenticated caller of this request."""
    return cast(Caller, g.caller)
