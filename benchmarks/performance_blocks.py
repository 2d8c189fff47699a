"""The blocks of the pages, each from the figures that one study left in benchmarks/results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .performance_precisions import cpu_precisions, demo_precisions, device_precisions, full_precisions, mixtures
from .performance_sizes import growth_chart, growth_table, rows_chart, size_tables, targets
from .performance_text import Block, megabytes, missing, table, where
from .report.study_charts import Bar, bars
from .report.svg import standalone

Results = Mapping[str, Any]
_WIDTH = 820


def cpu_sizes(results: Results) -> Block:
    data = results.get("cpu_sizes")
    if data is None:
        return missing("make full-size`, then `python -m edgeturbo.benchmarks.cpu_sizes")
    charts = {"performance_cpu_sizes.svg": standalone(rows_chart(data, _WIDTH))}
    drawn = growth_chart(data, _WIDTH)
    if drawn is not None:
        charts["performance_growth.svg"] = standalone(drawn)
    growth = growth_table(data)
    lines = [where(data["environment"]), table(*targets(data))]
    for title, head, rows in size_tables(data):
        lines += [f"**{title}**", table(head, rows)]
    return Block((*lines, *([] if growth is None else [table(*growth)])), charts)


def full_size(results: Results) -> Block:
    data = results.get("full_size")
    if data is None:
        return missing("make full-size")
    exports = data["exports"]
    head = ("", *(export["checkpoint"] for export in exports))
    rows = [
        ("checkpoint", *(megabytes(export["checkpoint_bytes"]) for export in exports)),
        ("checkpoint to plan, without the gate", *(f"{e['seconds_to_plan_without_the_gate']:g} s" for e in exports)),
        ("with range ledger, PyTorch reference and parity", *(f"{e['seconds_in_all']:g} s" for e in exports)),
        ("FP16 against PyTorch FP32, one frame", *(f"{e['psnr_db']:g} dB" for e in exports)),
        *((f"`{name}`", *(f"{e['bytes'][name]:,} bytes" for e in exports)) for name in exports[0]["bytes"]),
        ("one frame, ONNX Runtime on the CPU", *(f"{e['frame_ms_onnxruntime'] / 1e3:.1f} s" for e in exports)),
        ("peak resident memory of that run", *(megabytes(e["run_peak_rss_bytes"]) for e in exports)),
        ("peak resident memory of the export", *(_export_peak(e, data) for e in exports)),
    ]
    stages = [Bar(name, seconds, seconds, seconds) for name, seconds in exports[0]["seconds"].items()]
    chart = standalone(bars(stages, "s", _WIDTH, f"seconds of each stage of the {exports[0]['checkpoint']} export"))
    after = data.get("memory_after_fix")
    said = [] if after is None else [f"Memory: {after['what']}; build plan: {after['build plan is']}."]
    return Block((where(data["environment"]), table(head, rows), *said), {"performance_export.svg": chart})


def _export_peak(export: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    if "export_peak_rss_bytes" in export:
        return megabytes(export["export_peak_rss_bytes"])
    after = data.get("memory_after_fix", {})
    if after and after["what"].startswith(export["checkpoint"]):
        return megabytes(max(after["peak_rss_bytes_by_stage"].values()))
    return "not measured"


def passes(results: Results) -> Block:
    data = results.get("passes")
    if data is None:
        return missing("python -m edgeturbo.benchmarks.passes")
    head = ("size", "engine", "passes", "processor time, times as fast", "by the clock", "largest difference", "rounds")
    rows = [
        (f"{run['size']}x{run['size']}", gain["engine"], gain["passes"], _ratio(gain["cpu_gain"], gain["cpu_spread"]),
         _ratio(gain["gain"], gain["spread"]), f"{gain['max_abs']:.1e}", str(run["rounds"]))
        for run in data["runs"]
        for gain in run["gains"]
        if gain["passes"] != "none"
    ]  # fmt: skip
    said = (
        "Each against the same engine without any of these passes, in turns: the ratio of the medians, and in brackets "
        "the least and the largest ratio of a round, which need not lie around it. The difference is in an "
        "image of the range -1 to 1."
    )
    wheres = dict.fromkeys(where(run["environment"]) for run in data["runs"])
    return Block((said, table(head, rows), *wheres))


def stream(results: Results) -> Block:
    data = results.get("stream")
    if data is None:
        return missing("python -m edgeturbo.benchmarks.stream")
    head = ("figure", "got", "wanted", "")
    rows = [(f["name"], f"{f['value']:g} {f['unit']}", *_bar(f)) for f in data["figures"]]
    return Block((table(head, rows), where(data["environment"])))


def guard(results: Results) -> Block:
    data = results.get("guard")
    if data is None:
        return missing("python -m edgeturbo.benchmarks.guard")
    pictures = list(data["sizes"][0]["look_us"])
    head = ("size", *(f"one look, {picture} picture" for picture in pictures), "a frame through the loop", "share")
    rows = [
        (size["size"], *(f"{size['look_us'][picture]:.4g} µs" for picture in pictures),
         f"{size['loop_frame_us'] / 1e3:.3g} ms", f"{size['share']:.2%}")
        for size in data["sizes"]
    ]  # fmt: skip
    said = "The share is that of a look at a textured picture, which nearly every picture is, in a frame of the loop."
    return Block((said, table(head, rows), where(data["environment"])))


def _bar(figure: Mapping[str, Any]) -> tuple[str, str]:
    if figure.get("bar") is None:
        return "-", ""
    return f"{figure['relation']} {figure['bar']:g} {figure['unit']}", "met" if figure["met"] else "**not met**"


def soak(results: Results) -> Block:
    data = results.get("soak")
    if data is None:
        return missing("make soak")
    counts = data["counts"]
    said = (
        f"{data['frames']:,} frames in {data['seconds']:,.0f} s with {counts['reconnects']:,} reconnects and "
        f"{sum(counts['faults'].values()):,} faults of the source put in: {data['lost']} frames lost without a reason, "
        f"{sum(counts['dropped'].values())} dropped with one. {'Passed.' if data['passed'] else '**Not passed.**'}"
    )
    head = ("", "second quarter", "last quarter", "may grow by", "")
    rows = [
        (name.replace("_kib", ", KiB"), f"{g['second_quarter']:g}", f"{g['last_quarter']:g}", f"{g['tolerance']:g}",
         "flat" if g["flat"] else "**grows**")
        for name, g in data["growth"].items()
    ]  # fmt: skip
    return Block((said, table(head, rows), where(data["environment"])))


def predict_cpu(results: Results) -> Block:
    data = results.get("predict_cpu")
    if data is None:
        return missing("python -m edgeturbo.benchmarks.predict_cpu")
    worst = max(abs(line["error"]) for line in data["leave_one_size_out"])
    said = f"{data['what']}. Each size as the fit on all others predicts it errs by up to {worst:.0%}."
    head = ("size", "measured", "predicted", "error")
    rows = [
        (f"{line['width']}x{line['height']}", f"{line['measured_ms']:,.0f} ms", f"{line['predicted_ms']:,.0f} ms",
         f"{line['error']:+.1%}")
        for line in data["leave_one_size_out"]
    ]  # fmt: skip
    return Block((said, table(head, rows), where(data["environment"])))


def gpu(results: Results) -> Block:
    machines = [name for name, data in results.items() if data.get("device") == "cuda" and data.get("model") == "full"]
    if machines:
        return Block((f"Measured on: {', '.join(machines)}. The tables are below, under [Results](#results).",))
    return Block((
        "**No GPU has been measured yet.** None was at hand where this was written. Everything that measures is here, "
        "and was proven on the CPU's engines.",
    ))  # fmt: skip


BLOCKS: dict[str, Callable[[Results], Block]] = {
    "cpu-sizes": cpu_sizes, "full-size": full_size, "passes": passes, "stream": stream, "guard": guard, "soak": soak,
    "predict-cpu": predict_cpu, "gpu": gpu, "precisions-demo": demo_precisions, "precisions-cpu": cpu_precisions,
    "precisions-devices": device_precisions, "precisions-full-size": full_precisions, "precisions-mixed": mixtures,
}  # fmt: skip


def _ratio(value: float, spread: Sequence[float]) -> str:
    return f"{value:.3f} ({spread[0]:.3f} to {spread[1]:.3f})"
