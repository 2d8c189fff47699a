"""Running under systemd: telling it when frames flow, and the unit file that starts a stream at boot.

The protocol is sd_notify(3)'s: datagrams to the socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engines.errors import UsageError

# Half of systemd's limit, as sd_watchdog_enabled(3) recommends.
_WATCHDOG_SHARE = 0.5
_USER = "edgeturbo"


class Notifier:
    """Tells systemd what it waits for; does nothing where there is no systemd."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = int(watchdog) / 1e6 * _WATCHDOG_SHARE if watchdog.isdigit() and for_us else None
        self._next = 0.0

    @property
    def is_listened_to(self) -> bool:
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The engine is warm and the source delivers."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def emitted(self) -> None:
        """A new picture came out: the only thing that keeps the watchdog content. Cheap to call for each.

        One that is shown again, since the source is away or in the place of a bad one, is not new: systemd then
        restarts the service, which may cure either.
        """
        if self._interval is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._interval
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of Linux's abstract names.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.connect(address)
                channel.sendall(message.encode())
        except OSError:
            self._address = ""  # systemd is gone: a stream does not end for that


@dataclass(frozen=True)
class Unit:
    """What a unit file is made of. ``command`` is absolute; ``writable`` are the folders that it writes to."""

    command: Sequence[str]
    writable: Sequence[Path] = ()
    user: str = _USER
    watchdog_seconds: int = 30


def unit_file(unit: Unit) -> str:
    """A hardened service: no root, a read-only system, cameras and GPUs by group, and a restart when frames stop.

    Raises UsageError for a command that systemd could not find.
    """
    if not Path(unit.command[0]).is_absolute():
        raise UsageError("a unit file needs the command's full path", got=unit.command[0])
    # % begins systemd's own substitutions, and $ its variables.
    command = shlex.join(unit.command).replace("%", "%%").replace("$", "$$")
    writable = "".join(f"ReadWritePaths={path}\n" for path in unit.writable)
    return f"""# Install: save as /etc/systemd/system/edgeturbo.service, then
#   sudo useradd --system --groups video,render {unit.user}      (a group that does not exist may be left out)
#   sudo systemctl daemon-reload && sudo systemctl enable --now edgeturbo
[Unit]
Description=edgeturbo: translates a camera's frames
After=network-online.target nvargus-daemon.service
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
User={unit.user}
SupplementaryGroups=video render
# Loading and warming an engine up may take minutes on a small board.
TimeoutStartSec=600
TimeoutStopSec=10
WatchdogSec={unit.watchdog_seconds}
Restart=always
RestartSec=2

NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
{writable}PrivateTmp=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
# Not set, and why: PrivateDevices would hide cameras and GPUs; MemoryDenyWriteExecute breaks CUDA's compiler.
UMask=0027

[Install]
WantedBy=multi-user.target
"""
