"""``turbo-run`` for videos and cameras: what it means, and what it says while it runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._console import Console
from ..engines.errors import UsageError
from ..runtime.guard import OnBadFrame
from ..runtime.jobs import OUTPUT_MARK
from ..runtime.options import StreamOptions
from ..runtime.stream import NoSignal
from ..runtime.uri import Kind, Uri, parse_input, parse_output

if TYPE_CHECKING:
    from ..runtime.live import LiveRequest
    from ..runtime.stats import StreamStats
    from ..runtime.translator import Translator

_PAGE = "http://:8080"


@dataclass(frozen=True)
class StreamWishes:
    """What was typed. ``similar`` in grey levels; ``token`` for a page that other machines may see."""

    source: str
    outputs: tuple[str, ...]
    options: StreamOptions
    similar: float | None
    no_signal: NoSignal
    on_bad_frame: OnBadFrame | None
    service: bool
    token: str | None


def are_pictures(wishes: StreamWishes) -> bool:
    """Pictures to pictures, and nothing asked that a stream alone can do: each is a job of its own, which may fail."""
    ends = (parse_input(wishes.source), *map(parse_output, wishes.outputs))
    plain = replace(wishes.options, force=False) == StreamOptions() and wishes.similar is None
    plain = plain and wishes.on_bad_frame != "last" and not wishes.service
    return all(uri.kind is Kind.PICTURES for uri in ends) and len(ends) <= 2 and plain


def run_stream(console: Console, translator: Translator, wishes: StreamWishes) -> None:
    """Run until the source ends or the user does; a camera has no other end, so Ctrl-C is none that failed."""
    from ..runtime.live import Live

    request = _request(wishes)
    live = Live(translator, request)
    try:
        with console.status() as show:
            live.run(console.note, lambda stats: show(_figures(stats)))
    except KeyboardInterrupt:
        if not live.is_live:
            raise
    finally:
        translator.close()
        if live.has_begun:
            _tell(console, live.stats, request.outputs)


def print_unit_file(console: Console, bundle: Path, wishes: StreamWishes) -> None:
    """A unit file for the command as it was typed, with full paths and ``--service``."""
    from ..runtime.systemd import Unit, unit_file

    words = [word for word in sys.argv[1:] if word not in ("--print-unit", "--service")]
    paths = {str(bundle): bundle}
    paths |= {text: Path(text) for text in (wishes.source, *wishes.outputs) if _is_path(text)}
    command = [str(Path(sys.argv[0]).resolve()), *(str(paths[w].absolute()) if w in paths else w for w in words)]
    written = sorted({Path(text).absolute().parent for text in wishes.outputs if _is_path(text)})
    sys.stdout.write(unit_file(Unit([*command, "--service"], written)))
    console.note("# save it as /etc/systemd/system/edgeturbo.service; it holds what you typed, passwords included")


def _is_path(text: str) -> bool:
    return "://" not in text and text != "-" and not text.isdigit()


def _request(wishes: StreamWishes) -> LiveRequest:
    from ..runtime.live import LiveRequest, for_service

    source = parse_input(wishes.source)
    outputs = wishes.outputs or (_default_output(source, service=wishes.service),)
    request = LiveRequest.of(wishes.source, outputs, wishes.options, wishes.token)
    request = replace(request, similar=wishes.similar, no_signal=wishes.no_signal, on_bad_frame=wishes.on_bad_frame)
    return for_service(request, wishes.token) if wishes.service else request


def _default_output(source: Uri, *, service: bool) -> str:
    if source.kind is Kind.VIDEO and source.path is not None:
        return str(source.path.with_name(f"{source.path.stem}{OUTPUT_MARK}.mp4"))
    if source.kind is Kind.PICTURES:
        raise UsageError("pictures as a stream need an output", hint=f"turbo-run BUNDLE {source} out.mp4")
    return "null://" if service else _PAGE


def _figures(stats: StreamStats) -> str:
    age = stats.percentiles("age_out")
    parts = [f"{stats.rate():.1f} fps", f"{stats.emitted:,} pictures"]
    if age is not None and age.p95 < 60_000:
        parts.append(f"age {age.p50:.0f} ms")
    if dropped := stats.dropped.total():
        parts.append(f"{dropped:,} dropped")
    if bad := stats.bad_frames.total():
        parts.append(f"{bad:,} bad")
    if not stats.connected and stats.faults:
        parts.append("NO SIGNAL")
    return " · ".join(parts)


def _tell(console: Console, stats: StreamStats, outputs: tuple[Uri, ...]) -> None:
    summary = stats.summary()
    console.say(f"{stats.captured:,} frames captured, {stats.emitted:,} pictures to {', '.join(map(str, outputs))}")
    for name in ("dropped", "faults", "bad_frames"):
        if summary[name]:
            counts = ", ".join(f"{reason} {count:,}" for reason, count in summary[name].items())
            console.say(f"  {name.replace('_', ' ')}: {counts}")
    if stats.reconnects:
        console.say(f"  the source came back {stats.reconnects:,} times")
    for name, timing in summary["ms"].items():
        console.say(f"  {name}: p50 {timing['p50']:.1f} ms, p95 {timing['p95']:.1f}, p99 {timing['p99']:.1f}")
    console.result({"outputs": [str(uri) for uri in outputs], **summary})
