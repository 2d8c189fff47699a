"""What a report says, in order, as tables, charts and pictures: the HTML file and the Markdown file both show these."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..quality import MEASURES
from ..result import FAIR, PUBLISHED, SWEEP, BenchResult, RowResult
from . import charts
from .asked_sections import asked_sections
from .charts import Mark
from .cost_sections import cost_sections
from .section import NONE, Section

if TYPE_CHECKING:
    from ..environment import Environment
    from ..row_suite import Shown

# Of the bundle's own median: more than this between two measurements is not chance.
_DISTURBED = 0.10


def title_of(result: BenchResult) -> str:
    what = result.measured
    kind = " ".join(filter(None, (what.family, what.direction, f"{what.width}x{what.height}", what.precision)))
    batch = f", batch {what.batch}" if what.batch > 1 else ""
    return f"{what.name}: {kind}{batch}"


def headline(result: BenchResult) -> str:
    """The result in one sentence."""
    own = result.subject
    if own.engine is None:
        return f"{own.name}: latency was not measured."
    said = [f"{own.name}: {_ms(own.engine.p50_ms)} for the engine (median), {_rate(own, result):.4g} frames a second"]
    for role, text in ((PUBLISHED, "the published script's own way"), (FAIR, "PyTorch merged, prompt kept")):
        row = next((row for row in result.rows if row.role == role and row.ratio), None)
        if row is not None and row.ratio is not None:
            said.append(f"{row.ratio.value:.2f} times as fast as {text}")
    return ", ".join(said) + "."


def sections(result: BenchResult, shown: Mapping[str, Shown]) -> list[Section]:
    """Every part that the result has figures for, and one that lists what was not run."""
    made = [
        _warnings(result), _latency(result), _stages(result), _quality(result, shown), _pareto(result),
        _memory(result), _throughput(result), _energy(result), _stream(result),
        *asked_sections(result), *cost_sections(result), _not_run(result),
        _environment(result.environment), _asked(result),
    ]  # fmt: skip
    return [section for section in made if section is not None]


def _warnings(result: BenchResult) -> Section | None:
    said = [*(result.steadiness.warnings if result.steadiness else ()), *_unfair(result)]
    said += [f"{row.name}: {finding}" for row in result.rows for finding in row.verdict]
    return Section("Read this first", tuple(said), warns=True) if said else None


def _unfair(result: BenchResult) -> list[str]:
    """A speed-up over the weak row alone would flatter, and so would a neighbour that slows the bundle down."""
    roles = {row.role for row in result.rows if row.engine is not None}
    if PUBLISHED in roles and FAIR not in roles:
        said = ["the published script's way was measured without its fair counterpart: do not quote the ratio alone"]
    else:
        said = []
    alone = result.subject.engine
    said += [
        f"beside {row.name} the bundle's own median was {_ms(row.own_ms)}, alone {_ms(alone.p50_ms)}: the two disturb "
        "each other, or the machine changed; the ratio is of the former"
        for row in result.rows
        if row.own_ms is not None and alone is not None and abs(row.own_ms / alone.p50_ms - 1) > _DISTURBED
    ]
    return said


def _latency(result: BenchResult) -> Section | None:
    timed = [(row, row.engine) for row in result.rows if row.engine is not None]
    if not timed:
        return None
    head = (
        "row",
        "engine p50",
        "p95",
        "p99",
        "min",
        "MAD",
        "runs",
        "frame p50",
        "fps",
        "bundle beside it",
        "times the bundle's",
    )
    cells = tuple(
        (row.name, *(_ms(v) for v in (e.p50_ms, e.p95_ms, e.p99_ms, e.min_ms, e.mad_ms)), str(e.n),
         _ms(row.frame.p50_ms) if row.frame else NONE, f"{_rate(row, result):.4g}",
         NONE if row.own_ms is None else _ms(row.own_ms), _ratio(row))
        for row, e in timed
    )  # fmt: skip
    lines = [
        "Engine: the network alone. Frame: from an RGB frame in memory to an RGB image in memory, host work included. "
        "Each row took turns with the bundle's own, after a warm-up that does not count; the last column has the 95 % "
        "bootstrap interval of the ratio of medians.",
        f"Stopping rule: {result.options.rule}.",
        *_together("Stopped", {row.name: row.stopped for row, _ in timed}),
        *_together("Clock", {row.name: row.clock for row, _ in timed}),
    ]
    if result.steadiness is not None:
        same = result.steadiness.same
        lines.append(
            f"The same work measured twice in turns (A/A): {same.value:.3f}, 95 % interval {same.low:.3f} to "
            f"{same.high:.3f}. A ratio within these means nothing here."
        )
    drawn = [(_mark(row), engine) for row, engine in timed if row.role != SWEEP]
    chart = partial(charts.distributions, drawn) if drawn else None
    return Section("Latency", tuple(lines), head, cells, chart)


def _together(what: str, said: Mapping[str, str]) -> list[str]:
    """A sentence for each different text, with the rows that it holds for unless it holds for all."""
    rows: dict[str, list[str]] = {}
    for name, text in said.items():
        rows.setdefault(text, []).append(name)
    return [
        f"{what}: {text}" + ("." if len(rows) == 1 else f" ({'; '.join(names)}).")
        for text, names in rows.items() if text
    ]  # fmt: skip


def _stages(result: BenchResult) -> Section | None:
    rows = [row for row in result.rows if row.stages]
    if not rows:
        return None
    head = ("row", *rows[0].stages, "sum")
    cells = tuple((row.name, *(_ms(v) for v in row.stages.values()), _ms(sum(row.stages.values()))) for row in rows)
    lines = ("Medians for one picture from a JPEG file to a JPEG file. On a GPU, copies to and from it are inside "
             "the engine's share.",)  # fmt: skip
    return Section(
        "Stages of one picture", lines, head, cells, partial(charts.waterfall, [(_mark(r), r.stages) for r in rows])
    )


def _quality(result: BenchResult, shown: Mapping[str, Shown]) -> Section | None:
    rows = [(row, row.quality) for row in result.rows if row.quality is not None]
    if not rows:
        return None
    head = ("row, worst frame of each measure", *(f"{name} ({m.unit})" for name, m in MEASURES.items()),
            "PSNR under PyTorch's own (dB)")  # fmt: skip
    cells = [
        (row.name, *(_worst(quality.worst[name].value) if name in quality.worst else NONE for name in MEASURES),
         NONE if row.lost_db is None else f"{row.lost_db:.2f}")
        for row, quality in rows
    ]  # fmt: skip
    if result.measured.bf16_psnr_db is not None:
        own = ("PyTorch's own BF16 against its FP32, at the export", _worst(result.measured.bf16_psnr_db))
        cells.append((*own, *[NONE] * len(MEASURES)))
    lines = [f"Held to: {result.reference}. {len(rows[0][1].frames)} frame(s).", *_unmeasured(rows[0][0])]
    return Section("Pictures", tuple(lines), head, tuple(cells), pictures=shown)


def _unmeasured(row: RowResult) -> list[str]:
    return [f"{name}: {why}" for name, why in (row.quality.unmeasured if row.quality else {}).items()]


def _pareto(result: BenchResult) -> Section | None:
    rows = [
        (_mark(row), _rate(row, result), row.quality.worst["psnr_db"].value)
        for row in result.rows
        if row.engine is not None and row.quality is not None and row.role != SWEEP
    ]
    if not rows:
        return None
    return Section(
        "Speed against likeness",
        ("Up and to the right is better; the dashed line joins what nothing else beats in both.",),
        chart=partial(charts.pareto, rows),
    )


def _memory(result: BenchResult) -> Section | None:
    rows = [(row, row.memory) for row in result.rows if row.memory is not None]
    files = [f"{name}: {size / 1e6:,.1f} MB" for name, size in result.measured.bytes.items()]
    if not rows:
        return None
    head = ("row", "peak resident memory", "GPU memory", "first load", "second load")
    cells = tuple(
        (row.name, f"{m.peak_rss_bytes / 1e6:,.0f} MB", f"{m.device_bytes / 1e6:,.0f} MB" if m.device_bytes else NONE,
         f"{m.cold_load_s:.3g} s", f"{m.warm_load_s:.3g} s")
        for row, m in rows
    )  # fmt: skip
    lines = ("Each row in a process of its own, opened twice and run. Rows that run a checkpoint read and merge it "
             "first. The file cache was not emptied.", f"Files: {'; '.join(files)}.")  # fmt: skip
    return Section("Memory and loading", lines, head, cells)


def _throughput(result: BenchResult) -> Section | None:
    rows = [(row, figure) for row in result.rows for figure in row.throughput]
    if not rows:
        return None
    head = ("row", "streams", "batch", "frames a second, all together", "measured for")
    cells = tuple((row.name, str(f.streams), str(f.batch), f"{f.fps:.4g}", f"{f.seconds:.3g} s") for row, f in rows)
    return Section("Throughput", ("Each stream is a thread with an engine of its own.",), head, cells)


def _energy(result: BenchResult) -> Section | None:
    rows = [(row, row.energy) for row in result.rows if row.energy is not None]
    if not rows:
        return None
    head = ("row", "power", "energy a frame", "frames a second and watt", "power mode")
    cells = tuple(
        (
            row.name,
            f"{e.watts:.4g} W",
            f"{e.joules_per_frame:.4g} J",
            f"{e.frames_per_joule:.4g}",
            e.power_mode or NONE,
        )
        for row, e in rows
    )
    return Section("Energy", ("The whole board's or GPU's power while the row ran.",), head, cells)


def _stream(result: BenchResult) -> Section | None:
    found = result.stream
    if found is None:
        return None
    lost = ", ".join(f"{name} {count}" for name, count in found.dropped.items()) or "none"
    head = ("camera", "pictures out", "captured / out / dropped", "age into the engine p50 / p95", "age out p50 / p95")
    ages = [NONE if v is None else f"{v:.4g}" for v in (
        found.age_in_p50_ms, found.age_in_p95_ms, found.age_out_p50_ms, found.age_out_p95_ms)]  # fmt: skip
    cells = ((f"{found.rate:g} frames/s", f"{found.fps:.4g} frames/s", f"{found.captured} / {found.emitted} / {lost}",
              f"{ages[0]} / {ages[1]} ms", f"{ages[2]} / {ages[3]} ms"),)  # fmt: skip
    lines = ("A test camera into the loop that turbo-run has. Frames older than the newest are dropped, never queued.",)
    return Section("Camera loop", lines, head, cells)


def _not_run(result: BenchResult) -> Section | None:
    said = [f"{name}: not run: {why}" for name, why in result.not_run.items()]
    said += [f"{row.name}, {name}: not run: {why}" for row in result.rows for name, why in row.not_run.items()]
    return Section("Not run", tuple(said)) if said else None


def _environment(found: Environment) -> Section:
    gpu = found.gpu
    rows = [
        ("CPU", f"{found.cpu}, {found.cores} cores"),
        ("memory", NONE if found.memory_bytes is None else f"{found.memory_bytes / 1e9:.1f} GB"),
        (
            "GPU",
            "none" if gpu is None else f"{gpu.name}, {gpu.sm}, driver {gpu.driver}, {gpu.memory_bytes / 1e9:.1f} GB",
        ),
    ]
    if gpu is not None:
        rows.append(("GPU state", f"SM {gpu.sm_clock} of {gpu.sm_clock_limit}, power {gpu.power} of {gpu.power_limit}, "
                     f"memory {gpu.memory_clock}, {gpu.temperature}"))  # fmt: skip
    rows += [
        ("board", found.jetson or "no Jetson"),
        ("system", f"{found.system}, Python {found.python}"),
        ("load average", f"{_or_none(found.load_before)} before, {_or_none(found.load_after)} after"),
        ("commit", f"{found.commit or 'no checkout'}{', files changed' if found.dirty else ''}; code {found.code}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in found.packages.items())),
    ]
    return Section("Environment", (), ("", ""), tuple(rows))


def _asked(result: BenchResult) -> Section:
    frames = f"{result.options.frames} frame(s), sha256 {result.options.frames_sha256[:16]}…"
    rows = (
        ("command", result.command),
        ("frames", frames),
        ("generator.onnx", f"sha256 {result.measured.onnx_sha256}"),
        ("suites", ", ".join(result.options.suites)),
        ("against", ", ".join(result.options.against) or NONE),
        ("result schema", str(result.schema_version)),
    )
    return Section("The exact command", (), ("", ""), rows)


def _mark(row: RowResult) -> Mark:
    return Mark(row.name, row.role)


def _rate(row: RowResult, result: BenchResult) -> float:
    return result.fps_of(row) or 0.0


def _ratio(row: RowResult) -> str:
    found = row.ratio
    return "1" if found is None else f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _ms(value: float) -> str:
    return f"{value:,.4g} ms"


def _worst(value: float | None) -> str:
    return "equal" if value is None else f"{value:.4g}"


def _or_none(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}"
