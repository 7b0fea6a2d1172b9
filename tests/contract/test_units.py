"""The systemd units in docs/systemd pass systemd-analyze verify."""

import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "docs" / "systemd"


@pytest.mark.parametrize("name", ["sixstack.service", "sixstack-agent.service"])
def test_systemd_verifies_the_unit(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    # The documented path of the command does not exist on this computer.
    unit.write_text((UNITS / name).read_text().replace("/opt/sixstack/.venv/bin/sixstack", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)], capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
