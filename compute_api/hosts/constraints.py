"""Which hosts a server may, must or should go to, apart from those that have no room."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preference:
    """`only` these hosts (None is any), `never` these, `rather` these, `rather_not` those; `reason` is for people.

    `because` has what is to be said of single hosts in its place.
    """

    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    rather: tuple[str, ...] = ()
    rather_not: tuple[str, ...] = ()
    reason: str = ""
    because: tuple[tuple[str, str], ...] = ()

    def __and__(self, other: "Preference") -> "Preference":
        """What satisfies both."""
        only = self.only if other.only is None else other.only
        if self.only is not None and other.only is not None:
            only = tuple(sorted({*self.only} & {*other.only}))
        return Preference(
            only=only,
            never=(*self.never, *other.never),
            rather=(*self.rather, *other.rather),
            rather_not=(*self.rather_not, *other.rather_not),
            reason=", ".join(filter(None, (self.reason, other.reason))),
            because=(*self.because, *other.because),
        )

    def objection(self, host: str) -> str | None:
        """Why the host may not be chosen; None when it may."""
        if host in self.never or (self.only is not None and host not in self.only):
            return dict(self.because).get(host, self.reason)
        return None
