"""Conditional changes with `If-Match: revision_number=N` (optimistic concurrency control)."""

import re

from flask import request

from app.core.errors import BadRequest
from network_api.errors import RevisionMismatch
from network_api.resources.tags import Tagged

CONSTRAINT = "revision_number="


def check_revision(resource: Tagged) -> None:
    """Raise RevisionMismatch unless the resource has the revision in `If-Match`; without the header, do nothing.

    Other entity tags are ignored, as in Neutron. Raises BadRequest for several revisions or text.
    """
    header = request.headers.get("If-Match")
    if header is None:
        return
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    wanted = [tag.removeprefix(CONSTRAINT) for tag in tags if tag.startswith(CONSTRAINT)]
    if len(wanted) > 1:
        raise BadRequest("Multiple revision_number constraints are not supported.")
    for number in wanted:
        if not re.fullmatch("[0-9]{1,18}", number):
            raise BadRequest("Revision number constraint must be an integer.")
        if int(number) != resource.revision_number:
            raise RevisionMismatch(int(number), resource.revision_number)
