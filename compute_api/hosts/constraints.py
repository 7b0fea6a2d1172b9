"""Host constraints of a scheduling request: required, forbidden, preferred and avoided hosts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostConstraints:
    """Hosts that a server may be scheduled to, apart from their capacity.

    `required` None allows every host. `reason` is shown to users for every host that the constraints exclude;
    `host_reasons` are (host, reason) pairs that replace it for single hosts.
    """

    required: tuple[str, ...] | None = None
    forbidden: tuple[str, ...] = ()
    preferred: tuple[str, ...] = ()
    avoided: tuple[str, ...] = ()
    reason: str = ""
    host_reasons: tuple[tuple[str, str], ...] = ()

    def __and__(self, other: "HostConstraints") -> "HostConstraints":
        """Return the constraints that satisfy both."""
        required = self.required if other.required is None else other.required
        if self.required is not None and other.required is not None:
            required = tuple(sorted({*self.required} & {*other.required}))
        return HostConstraints(
            required=required,
            forbidden=(*self.forbidden, *other.forbidden),
            preferred=(*self.preferred, *other.preferred),
            avoided=(*self.avoided, *other.avoided),
            reason=", ".join(filter(None, (self.reason, other.reason))),
            host_reasons=(*self.host_reasons, *other.host_reasons),
        )

    def exclusion_reason(self, host: str) -> str | None:
        """Return why the host may not be chosen, or None when it may."""
        if host in self.forbidden or (self.required is not None and host not in self.required):
            return dict(self.host_reasons).get(host, self.reason)
        return None
