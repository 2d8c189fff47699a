"""The study of precisions as blocks of docs/precision.md: what each costs on which device, and its pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .performance_text import Block, megabytes, missing, table, where
from .report.study_charts import Point, scatter
from .report.svg import standalone

Results = Mapping[str, Any]
Row = Mapping[str, Any]

_COMMAND = "python -m edgeturbo.benchmarks.precisions"
_FULL_COMMAND = f"{_COMMAND} --full-size --ckpt full-size/cyclegan.pkl --base full-size/base"
_WIDTH = 820
_NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
_BACKENDS = {"openvino": "OpenVINO plan", "tensorrt-rtx": "RTX plan, sm_89"}
_DRAWN = ("agx-orin", "rtx-4090")  # in the chart: a device without and one with units for FP8
_ENGINE = "onnxruntime"
_MOST_OF_A_FRONT = 14
_WHOLE = 100.0  # milliseconds from which on no digits stand behind the point


def demo_precisions(results: Results) -> Block:
    data = results.get("precisions", {}).get("demo")
    if data is None or "quality" not in data:
        return missing(_COMMAND)
    head = ("", "ONNX", *_BACKENDS.values(), "convolutions on eight bits", "PSNR, worst and median", "SSIM, worst",
            "OpenVINO's PSNR", "export, CPU time", "its peak memory")  # fmt: skip
    rows = [_demo_row(row, data) for row in data["rows"]]
    said = (
        f"The demo at {_size(data['rows'][0])} through ONNX Runtime, against unmerged PyTorch in FP32, on "
        f"{data['frames']}. Its scales are those of the two whole photographs alone."
    )
    return Block((said, table(head, rows), where(data["environment"])))


def _demo_row(row: Row, data: Results) -> tuple[str, ...]:
    if row["export"]["error"]:
        return _name(row), _refused(row["export"]["error"]), *["-"] * 8
    quality = data["quality"][_ENGINE].get(row["key"], {})
    other = data["quality"]["openvino"].get(row["key"], {})
    return (
        _name(row), megabytes(row["onnx_bytes"]), *(_plan(row, backend) for backend in _BACKENDS), _share(row),
        _likeness(quality), f"{quality['worst_ssim']:.4f}" if "worst_ssim" in quality else "-", _likeness(other),
        *_cost(row["export"]),
    )  # fmt: skip


def cpu_precisions(results: Results) -> Block:
    data = results.get("precisions", {}).get("demo")
    if data is None or data.get("times") is None:
        return missing(f"{_COMMAND} --rounds 20")
    times = data["times"]["engines"]
    names = [row["key"] for row in data["rows"]]
    head = ("", *(f"{_NAMES[engine]}{column}" for engine in times for column in ("", ", times FP16's")))
    rows = [(name, *(cell for engine in times for cell in _timed(times[engine].get(name)))) for name in names]
    said = f"The demo's network alone, in turns, {data['times']['stopped']}: medians, and ratios with a 95 % interval."
    return Block((said, table(head, rows), where(data["times"]["environment"])))


def _timed(found: Mapping[str, Any] | None) -> tuple[str, str]:
    if found is None or "not_run" in found:
        return ("-" if found is None else f"not run: {found['not_run']}"), "-"
    ratio = found["ratio_to_fp16"]
    said = "-" if ratio is None else f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
    return f"{found['p50_ms']:.0f} ms", said


def device_precisions(results: Results) -> Block:
    parts = results.get("precisions", {})
    full = [row for row in parts.get("full_size", {}).get("rows", []) if row.get("predicted") and not _mixed(row)]
    demo = [row for row in parts.get("demo", {}).get("rows", []) if row.get("predicted")]
    if not full:
        return missing(_FULL_COMMAND)
    largest = [row for row in full if row["size"] == full[0]["size"]]
    points = [point for key in _DRAWN for point in _points(largest, key)]
    name = f"predicted milliseconds and PSNR of each precision, full size, {_size(full[0])}"
    chart = standalone(scatter(points, "predicted ms, logarithmic", "PSNR, dB", _WIDTH, name))
    lines = [
        f"Predicted milliseconds by the roofline, SD-Turbo's size at {_size(full[0])}, and the range in brackets:",
        table(*_estimates(largest)),
        *(
            [f"The demo at {_size(demo[0])}, with a four-hundredth of the weights:", table(*_estimates(demo))]
            if demo
            else []
        ),
    ]
    return Block(tuple(lines), {"precision_pareto.svg": chart})


def _points(rows: Sequence[Row], key: str) -> list[Point]:
    return [
        Point(_name(row), row["predicted"][key]["ms"], row["parity"]["psnr_db"], row["predicted"][key]["name"])
        for row in rows
        if row["parity"] and row["parity"]["psnr_db"] is not None
    ]


def _estimates(rows: Sequence[Row]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    devices = rows[0]["predicted"]
    head = ("", *(device["name"] for device in devices.values()))
    return head, [(_name(row), *(_estimate(row["predicted"][key]) for key in devices)) for row in rows]


def _estimate(found: Mapping[str, Any]) -> str:
    said = f"{_ms(found['ms'])} ({_ms(found['ms_low'])} to {_ms(found['ms_high'])})"
    return f"{said}, no unit for it there" if found.get("no_unit") else said


def full_precisions(results: Results) -> Block:
    data = results.get("precisions", {}).get("full_size")
    if data is None:
        return missing(_FULL_COMMAND)
    head = ("", "size", "ONNX data", "RTX plan, sm_89", "convolutions on eight bits", "PSNR against PyTorch FP32",
            "SSIM", "export, CPU time", "its peak memory", "build, CPU time", "its peak memory")  # fmt: skip
    return Block((table(head, [_full_row(row) for row in data["rows"]]), where(data["environment"])))


def _full_row(row: Row) -> tuple[str, ...]:
    export, built = row["export"], row["plans"].get("tensorrt-rtx")
    cost = _cost(export)
    if export["error"]:
        return _name(row), _size(row), "-", "-", "-", _refused(export["error"]), "-", *cost, "-", "-"
    parity, build = row["parity"], ("-", "-") if built is None else _cost(built)
    psnr = "equal" if parity["psnr_db"] is None else f"{parity['psnr_db']:.1f} dB"
    return (
        _name(row), _size(row), megabytes(row["data_bytes"]), _plan(row, "tensorrt-rtx"), _share(row), psnr,
        f"{parity['ssim']:.4f}", *cost, *build,
    )  # fmt: skip


def mixtures(results: Results) -> Block:
    parts = results.get("precisions", {})
    rows = [(part, row) for part in ("full_size", "demo") for row in parts.get(part, {}).get("rows", []) if _mixed(row)]
    if not rows:
        return missing(f"{_FULL_COMMAND} --precision mixed:int8 --size 256x256")
    lines = [line for part, row in rows for line in _mixture(part, row)]
    return Block(tuple(lines))


def _mixture(part: str, row: Row) -> list[str]:
    title = f"**{row['precision']}, {'full size' if part == 'full_size' else 'the demo'}, {_size(row)}.**"
    if row["export"]["error"]:
        return [f"{title} Refused: {row['export']['error']}"]
    found = row["quantisation"]
    front = found["front"]
    chosen = next((m for m in front if set(m["blocks"]) == set(found["blocks"])), None)
    took = f"The whole export took {_cost(row['export'])[0]} of processor time."
    if chosen is None:
        return [f"{title} {took}"]
    measured = "-" if chosen["measured_db"] is None else f"{chosen['measured_db']:.1f} dB"
    said = (
        f"{title} Bound {found['min_psnr_db']:g} dB against the FP16 picture, for {found['device']}. Taken: "
        f"{len(found['blocks'])} of {len(found['sensitivity'])} blocks, {found['conv_share']:.1%} of the convolutions' "
        f"arithmetic, {front[0]['ms']:.4g} to {chosen['ms']:.4g} ms predicted, {measured} measured. {took}"
    )
    head = ("blocks on eight bits", "predicted ms", "predicted PSNR", "measured PSNR")
    return [said, table(head, [_on_front(mixture, chosen) for mixture in _thinned(front, chosen)])]


def _on_front(mixture: Mapping[str, Any], chosen: Mapping[str, Any]) -> tuple[str, ...]:
    predicted = "none departs" if mixture["predicted_db"] is None else f"{mixture['predicted_db']:.1f} dB"
    measured = "-" if mixture["measured_db"] is None else f"{mixture['measured_db']:.1f} dB"
    count = f"{len(mixture['blocks'])}{', **taken**' if mixture is chosen else ''}"
    return count, f"{mixture['ms']:.4g}", predicted, measured


def _thinned(front: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """At most some of a front, evenly spread, with all that were measured."""
    step = max(1, len(front) // _MOST_OF_A_FRONT)
    last = len(front) - 1
    return [m for i, m in enumerate(front) if i % step == 0 or i == last or m is chosen or m["measured_db"] is not None]


def _mixed(row: Row) -> bool:
    return bool(row["precision"].startswith("mixed:"))


def _name(row: Row) -> str:
    return str(row["key"])


def _size(row: Row) -> str:
    return f"{row['size'][0]}x{row['size'][1]}"


def _plan(row: Row, backend: str) -> str:
    built = row["plans"].get(backend)
    if built is None:
        return "-"
    return f"not built: {built['error']}" if built["error"] else megabytes(built["bytes"])


def _cost(ran: Mapping[str, Any]) -> tuple[str, str]:
    """Processor time, which neighbours do not lengthen as they do the clock's, and the peak of resident memory."""
    return f"{ran['cpu_seconds']:.0f} s" if "cpu_seconds" in ran else "-", megabytes(ran["peak_rss_bytes"])


def _share(row: Row) -> str:
    found = row["quantisation"]
    if found is None:
        return "-"
    return f"{found['conv_share']:.1%}{'' if found['method'] else ', weights alone'}"


def _likeness(quality: Mapping[str, Any]) -> str:
    if "worst_psnr_db" not in quality:
        return f"not run: {quality['not_run']}" if "not_run" in quality else "-"
    worst, median = quality["worst_psnr_db"], quality["median_psnr_db"]
    return "equal" if worst is None else f"{worst:.1f}, {'equal' if median is None else f'{median:.1f}'} dB"


def _refused(error: str) -> str:
    """What the gate got and what it wanted, of its message on one line; else all of it."""
    found = re.search(r"expected: (.+) got: (.+?) try: ", error)
    return f"**refused**: {found.group(2)}; wanted: {found.group(1)}" if found else f"**refused**: {error}"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.3g}"
