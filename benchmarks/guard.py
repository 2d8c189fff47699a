"""``python -m edgeturbo.benchmarks.guard``: what the look at every picture costs, beside a frame of the null engine.

The null engine's frame through a ``Translator`` is the least that anything can take, so the share is the largest.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from .._console import Console
from ..engines.files import write_json
from ..runtime.guard import rgb_fault_of
from ..runtime.options import StreamOptions
from ..runtime.sinks.null import NullSink
from ..runtime.sources.pattern import PatternSource
from ..runtime.stats import StreamStats
from ..runtime.stream import LoopOptions, Stream
from ..runtime.translator import Translator
from ..runtime.uri import parse_input
from .environment import finished, read_environment
from .null_bundle import null_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIZES = ((512, 512), (1280, 720))
_CALLS, _FRAMES = 200, 300


def measure(folder: Path, size: tuple[int, int]) -> dict[str, object]:
    """Medians in microseconds of the look at a textured picture, at a constant one (its whole is compared), at one that
    differs in its last byte alone, and of a frame through the stream loop; ``share`` is the first by the last.
    """
    width, height = size
    textured: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    black = np.zeros_like(textured)
    nearly = black.copy()
    nearly[-1, -1, -1] = 1
    pictures = {"textured": textured, "constant": black, "last byte differs": nearly}
    looks = {name: _median_us(partial(rgb_fault_of, picture, textured)) for name, picture in pictures.items()}
    frame_us = _loop_us(null_bundle(folder / f"{width}x{height}", width, height).root, size)
    return {
        "size": f"{width}x{height}",
        "look_us": looks,
        "loop_frame_us": round(frame_us, 1),
        "share": round(looks["textured"] / frame_us, 5),
    }


def _loop_us(bundle: Path, size: tuple[int, int]) -> float:
    """The null engine's frame through the whole loop, from test pictures to nowhere, the look included."""
    source = PatternSource(
        parse_input(f"test://ball?size={size[0]}x{size[1]}&live=0&frames={_FRAMES}"), StreamOptions()
    )
    source.open()
    stats = StreamStats()
    with Translator(bundle, engine="null") as translator:
        options = LoopOptions(latest=False, judge=translator.fault_of)
        started = time.perf_counter()
        Stream(source, translator.translate_unguarded, [NullSink()], options, stats).run()
        return (time.perf_counter() - started) / stats.emitted * 1e6


def _median_us(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return round(float(np.median(taken)) * 1e6, 2)


def main(json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None) -> None:
    """Measure what the guard costs and say it."""
    console = Console()
    environment = read_environment()
    with tempfile.TemporaryDirectory() as folder:
        sizes = [measure(Path(folder), size) for size in _SIZES]
    for size in sizes:
        console.say(json.dumps(size))
    if json_file is not None:
        data = {"environment": asdict(finished(environment)), "calls": _CALLS, "frames": _FRAMES, "sizes": sizes}
        write_json(json_file, data, indent=2)


if __name__ == "__main__":
    typer.run(main)
