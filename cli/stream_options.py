"""The options of ``turbo-run`` that are about a stream, by the panel of its help that they stand in."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import typer

_CAMERA, _WRITING, _LOOP, _SERVICE = "Source", "Output", "Stream", "Service"

# Typer reads these annotations at run time, on Python 3.10 too: Optional, not X | None.
InputWidth = Annotated[Optional[int], typer.Option(help="Asked of a camera.", rich_help_panel=_CAMERA)]
InputHeight = Annotated[Optional[int], typer.Option(help="Asked of a camera.", rich_help_panel=_CAMERA)]
InputRate = Annotated[Optional[float], typer.Option(help="Frames a second.", rich_help_panel=_CAMERA)]
InputCodec = Annotated[Optional[str], typer.Option(help="mjpeg, h264, h265, yuyv422.", rich_help_panel=_CAMERA)]
InputFlip = Annotated[
    str,
    typer.Option(help="none, rotate-180, clockwise, counterclockwise, horizontal, …", rich_help_panel=_CAMERA),
]
InputLoop = Annotated[int, typer.Option(help="Times to play again; -1: for ever.", rich_help_panel=_CAMERA)]
InputLatency = Annotated[
    Optional[int], typer.Option(help="Milliseconds of a network jitter buffer.", rich_help_panel=_CAMERA)
]
Backend = Annotated[
    Literal["auto", "pyav", "gstreamer"], typer.Option(help="What reads and writes.", rich_help_panel=_CAMERA)
]
OutputCodec = Annotated[
    Optional[Literal["h264", "h265", "mjpeg"]], typer.Option(help="Of videos.", rich_help_panel=_WRITING)
]
OutputBitrate = Annotated[Optional[int], typer.Option(help="Bits a second.", rich_help_panel=_WRITING)]
Headless = Annotated[bool, typer.Option("--headless", help="Never a window.", rich_help_panel=_WRITING)]
Buffer = Annotated[
    Optional[Literal["latest", "all"]],
    typer.Option(help="Newest frame only, or every one; default: by source.", rich_help_panel=_LOOP),
]
MaxFrames = Annotated[Optional[int], typer.Option(help="Pictures to stop after.", rich_help_panel=_LOOP)]
Duration = Annotated[Optional[float], typer.Option(help="Seconds to stop after.", rich_help_panel=_LOOP)]
SkipSimilar = Annotated[
    Optional[float],
    typer.Option(metavar="LEVELS", help="Show the last picture again while frames differ less.", rich_help_panel=_LOOP),
]
NoSignal = Annotated[
    Literal["card", "last", "nothing"],
    typer.Option(help="What to show while a camera is away.", rich_help_panel=_LOOP),
]
OnBadFrame = Annotated[
    Optional[Literal["error", "pass", "last"]],
    typer.Option(
        help="A picture that broke in the network: end with an error, pass it on, or show the last good one; default: "
        "last for a camera, else error.",
        rich_help_panel=_LOOP,
    ),
]
Service = Annotated[
    bool,
    typer.Option("--service", help="For systemd: metrics, health, patience.", rich_help_panel=_SERVICE),
]
Token = Annotated[Optional[str], typer.Option(help="For a page that other machines may see.", rich_help_panel=_SERVICE)]
PrintUnit = Annotated[
    bool, typer.Option("--print-unit", help="Print a systemd unit for this command.", rich_help_panel=_SERVICE)
]
