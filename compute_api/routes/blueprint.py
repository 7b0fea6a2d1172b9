"""The blueprint that every route of /compute/v2.1 hangs on."""

from flask import Blueprint

from app.web import microversion

compute = Blueprint("compute", __name__, url_prefix="/compute/v2.1")
microversion.COMPUTE.install(compute)
