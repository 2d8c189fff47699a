from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.runtime.systemd import Notifier, Unit, unit_file


@pytest.fixture
def systemd(tmp_path):
    """The socket that systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        yield listener


def said(listener: socket.socket) -> list[str]:
    listener.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(listener.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_it_says_ready_alive_and_stopping(systemd):
    notifier = Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "200000"})
    notifier.ready("20 frames a second")
    notifier.emitted()
    notifier.emitted()
    time.sleep(0.12)
    notifier.emitted()
    notifier.stopping()
    assert said(systemd) == ["READY=1\nSTATUS=20 frames a second", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


def test_the_watchdog_of_another_process_is_left_alone(systemd):
    Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}).emitted()
    assert said(systemd) == []


def test_without_systemd_nothing_happens(tmp_path):
    for environment in ({}, {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1"}):
        notifier = Notifier(environment)
        notifier.ready("")
        notifier.emitted()
        assert not notifier.is_listened_to


def test_an_abstract_name_begins_with_a_zero_byte():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0edgeturbo-test")
        Notifier({"NOTIFY_SOCKET": "@edgeturbo-test"}).stopping()
        assert said(listener) == ["STOPPING=1"]


COMMAND = ("/opt/venv/bin/turbo-run", "/srv/day night", "rtsp://cam/1?a=5%20", "--service")


def test_the_unit_runs_the_command_as_it_was_typed():
    text = unit_file(Unit(COMMAND, (Path("/var/lib/edgeturbo"),)))
    assert "ExecStart=/opt/venv/bin/turbo-run '/srv/day night' 'rtsp://cam/1?a=5%%20' --service" in text
    assert "ReadWritePaths=/var/lib/edgeturbo" in text
    for line in ("Type=notify", "NoNewPrivileges=yes", "ProtectSystem=strict", "SupplementaryGroups=video render"):
        assert line in text.splitlines()
    assert "User=root" not in text


def test_a_command_that_systemd_could_not_find_is_refused():
    with pytest.raises(UsageError, match="full path"):
        unit_file(Unit(("turbo-run",)))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    unit = tmp_path / "edgeturbo.service"
    unit.write_text(unit_file(Unit((shutil.which("true"), *COMMAND[1:]), user="daemon")))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    mine = [line for line in done.stderr.splitlines() if "edgeturbo.service" in line]
    assert not mine, done.stderr
