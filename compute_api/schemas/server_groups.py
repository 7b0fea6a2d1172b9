"""Request bodies of server groups."""

from typing import Annotated, Literal

from pydantic import Field

from app.core import errors
from app.web.bodies import Body, since, until
from app.web.microversion import Version, v
from compute_api.schemas.fields import Integer, Name

SOFT_POLICIES_SINCE, RULES_SINCE = v("2.15"), v("2.64")
Policy = Literal["affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"]


class Rules(Body):
    """Rules of the anti-affinity policy."""

    max_server_per_host: Annotated[Integer, Field(ge=1)] | None = None


class GroupFields(Body):
    """The group of POST /os-server-groups."""

    name: Name
    policies: Annotated[list[Policy] | None, Field(min_length=1, max_length=1), until("2.63")] = None
    policy: Annotated[Policy | None, since("2.64")] = None
    rules: Annotated[Rules | None, since("2.64")] = None

    def policy_and_limit(self, version: Version) -> tuple[Policy, int | None]:
        """Return the policy and its limit of servers on a host. Raises BadRequest."""
        policy = self.policies[0] if self.policies else self.policy
        if policy is None:
            missing = "policy" if version >= RULES_SINCE else "policies"
            raise errors.BadRequest(
                f"Invalid input for field/attribute server_group. '{missing}' is a required property"
            )
        if policy.startswith("soft-") and version < SOFT_POLICIES_SINCE:
            raise errors.BadRequest(
                f"Invalid input for field/attribute policies. Value: {policy}. '{policy}' is not one of "
                "['anti-affinity', 'affinity']"
            )
        limit = self.rules.max_server_per_host if self.rules else None
        if limit is not None and policy != "anti-affinity":
            raise errors.BadRequest("Only anti-affinity policy supports rules.")
        return policy, limit


class CreateGroup(Body):
    """POST /os-server-groups."""

    server_group: GroupFields
