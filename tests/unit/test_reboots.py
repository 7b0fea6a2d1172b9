"""Restart of machines after a reboot of the host, and notification of systemd."""

import socket
from pathlib import Path

import pytest

from app.core.processes import notify_systemd
from compute_agent.host_config import BOOT_ID, RESTART_MARK, clear_restart_mark, should_restart_machines


def test_first_start_restarts_no_machines(tmp_path: Path) -> None:
    assert not should_restart_machines(tmp_path)
    clear_restart_mark(tmp_path)
    assert not should_restart_machines(tmp_path)


def test_reboot_is_recorded_until_machines_are_started(tmp_path: Path) -> None:
    (tmp_path / BOOT_ID).write_text("another boot\n")
    assert should_restart_machines(tmp_path)
    assert should_restart_machines(tmp_path), "the mark survives a restart of the agent"
    clear_restart_mark(tmp_path)
    assert not should_restart_machines(tmp_path)


def test_machines_stopped_by_the_operator_are_started_once(tmp_path: Path) -> None:
    clear_restart_mark(tmp_path)
    (tmp_path / RESTART_MARK).touch()
    assert should_restart_machines(tmp_path)
    clear_restart_mark(tmp_path)
    assert not should_restart_machines(tmp_path)


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_systemd_is_notified_when_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    address = str(tmp_path / "notify") if kind == "file" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"
