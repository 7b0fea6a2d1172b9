"""Blueprint of all routes below /compute/v2.1."""

from flask import Blueprint

from app.web import microversion
from compute_api.routes.base import project_in_path

compute = Blueprint("compute", __name__, url_prefix="/compute/v2.1")
microversion.COMPUTE.install(compute)
compute.before_request(project_in_path.check_path)
