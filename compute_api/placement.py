"""Which hosts a server may, must or should go to, apart from those that have no room."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preference:
    """`only` these hosts (None is any), `never` these, `rather` these, `rather_not` those; `reason` is for people."""

    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    rather: tuple[str, ...] = ()
    rather_not: tuple[str, ...] = ()
    reason: str = ""
