"""Options that several commands have, and values that Typer does not parse."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from ..engines.errors import UsageError

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
AsJson = Annotated[bool, typer.Option("--json", help="Print one machine-readable line and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print a traceback with an error.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace existing outputs.")]

# The camera's own frames, resized and converted in the graph.
CameraFrame = Annotated[
    Optional[str], typer.Option(metavar="WxH", help="Take a camera's own frames, of this size, and return such.")
]
FrameFormat = Annotated[
    Optional[Literal["rgb", "bgr", "rgba", "nv12", "yuyv"]], typer.Option(help="Their pixels; default rgb.")
]
OutputFormat = Annotated[
    Optional[Literal["rgb", "bgr", "rgba", "nv12", "yuyv"]],
    typer.Option(help="The image's pixels; default: the frame's."),
]
ColourMatrix = Annotated[Optional[Literal["bt601", "bt709"]], typer.Option(help="How YUV is meant; default bt601.")]
ColourRange = Annotated[Optional[Literal["limited", "full"]], typer.Option(help="How YUV is meant; default limited.")]


def bytes_of(text: str) -> int:
    """``2G``, ``512M``, ``1.5GiB`` or plain bytes; the letters are powers of 1024, as trtexec has them."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UsageError(
            "--workspace is not a size", expected="for example 2G or 512M", got=text, hint="--workspace 2G"
        )
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def typed_command() -> str:
    """The command as it was typed, to be written down with what it made."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
