"""The full-size study on a CPU (``cpu_sizes``) as tables and charts: engine beside engine, and size after size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from .performance_text import megabytes
from .report.study_charts import Bar, Curve, bars, growth

NAMES = {
    "pytorch-fp32": "PyTorch eager, FP32",
    "products-f32": "as many FP32 operations, products of matrices",
    "pytorch-bf16": "PyTorch eager, BF16",
    "pytorch-compile-fp32": "torch.compile, FP32",
    "onnxruntime-fp32": "ours, ONNX Runtime FP32",
    "onnxruntime-fp16": "ours, ONNX Runtime FP16",
    "openvino-f32": "ours, OpenVINO f32",
    "openvino-f32-plan": "ours, OpenVINO f32, built plan",
    "openvino-f32-split": "ours, OpenVINO f32, split-upsample",
    "openvino-f32-winograd": "ours, OpenVINO f32, winograd",
    "openvino-bf16": "ours, OpenVINO bf16",
    "three-openvino-f32": "three graphs, OpenVINO f32",
}
_FAMILIES = ("pytorch", "onnxruntime", "openvino", "three")
_EAGER, _OURS = "pytorch-fp32", ("openvino-f32-plan", "openvino-f32", "onnxruntime-fp32")
_FASTEST, _PRODUCTS = "openvino-f32-winograd", "products-f32"
_ALGEBRA = ("openvino-f32-split", _FASTEST)
_PEERS = ("pytorch-compile-fp32", "three-openvino-f32")
_TRAINED = (512, 512)  # the size that the targets are for, and that the published checkpoints were trained at

# The project's own aims for this study.
_OVER_EAGER, _OVER_PEER, _RESIDENT = 0.6, 1.10, 7_000_000_000
_MET, _NOT_MET, _NOT_MEASURED = "met", "**not met**", "not measured"

Data = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def targets(data: Data) -> Table:
    """What the project wanted of 512x512 in FP32 against what it got."""
    rows = _rows_at(data, _TRAINED)
    ours = next((rows[key] for key in _OURS if key in rows), None)
    peer = min((rows[key] for key in _PEERS if key in rows), key=lambda row: float(row["median_s"]), default=None)
    head = ("at 512x512, FP32, on this CPU", "wanted", "got", "")
    found = [
        _over_eager(ours, "as exported"), _over_eager(rows.get(_FASTEST), "with `--passes winograd`"),
        *(_with_algebra(rows, key) for key in _ALGEBRA), _over_peer(ours, peer), _resident(ours),
    ]  # fmt: skip
    if _PRODUCTS in rows and rows[_PRODUCTS]["ratio_to_eager"] is not None:
        found.append((NAMES[_PRODUCTS], "-", f"{_times(rows[_PRODUCTS]['ratio_to_eager'])} of eager", "for comparison"))
    return head, found


def _over_eager(ours: Data | None, how: str) -> tuple[str, ...]:
    wanted = (f"time against PyTorch eager, {how}", f"at most {_OVER_EAGER:g}x")
    ratio = None if ours is None else ours.get("ratio_to_eager")
    if ours is None or ratio is None:
        return *wanted, "-", _NOT_MEASURED
    return *wanted, f"{_times(ratio)}, {NAMES[ours['key']]}", _verdict(ratio["value"] <= _OVER_EAGER)


def _with_algebra(rows: Mapping[str, Data], key: str) -> tuple[str, ...]:
    """Exact rewrites over the same graph without them, opened the same way, in the rounds that both ran in."""
    with_it, without = rows.get(key), rows.get("openvino-f32")
    wanted = (f"{NAMES[key]}, against none of it", "below 1x")
    if with_it is None or without is None:
        return *wanted, "-", _NOT_MEASURED
    pairs = list(zip(with_it["seconds"], without["seconds"], strict=False))
    got = median(_flat([mine for mine, _ in pairs])) / median(_flat([its for _, its in pairs]))
    return *wanted, f"{got:.2f}x", _verdict(got < 1)


def _over_peer(ours: Data | None, peer: Data | None) -> tuple[str, ...]:
    wanted = ("time against the best peer", f"at most {_OVER_PEER:.2f}x")
    if ours is None or peer is None:
        return *wanted, "-", _NOT_MEASURED
    got = ours["median_s"] / peer["median_s"]
    said = f"{got:.2f}x, {NAMES[ours['key']]} against {NAMES[peer['key']]}"
    return *wanted, said, _verdict(got <= _OVER_PEER)


def _resident(ours: Data | None) -> tuple[str, ...]:
    wanted = ("peak resident memory", f"at most {megabytes(_RESIDENT)}")
    if ours is None:
        return *wanted, "-", _NOT_MEASURED
    return *wanted, megabytes(ours["peak_rss_bytes"]), _verdict(ours["peak_rss_bytes"] <= _RESIDENT)


def size_tables(data: Data) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """For each size its title, headings and a row for each engine; one that did not run says why."""
    head = ("", "a frame, median", "least to most", "times eager's", "processor time", "peak memory", "to open",
            "PSNR against eager", "runs")  # fmt: skip
    for size in data["sizes"]:
        title = f"{size['width']}x{size['height']}, {size['tflop']:g} TFLOP"
        yield title, head, [_row(row) for row in size["rows"]]


def _row(row: Data) -> tuple[str, ...]:
    name = _name(row["key"])
    if "median_s" not in row:
        return name, f"not measured: {row['note']}", *["-"] * 7
    seconds, cpu = _flat(row["seconds"]), sorted(_flat(row["cpu_seconds"]))
    ratio, psnr = row.get("ratio_to_eager"), row.get("psnr_to_eager_db")
    return (
        f"{name}: {row['note']}" if row.get("note") else name,
        f"{row['median_s']:.2f} s", f"{min(seconds):.2f} to {max(seconds):.2f} s",
        "-" if ratio is None else _times(ratio), f"{cpu[len(cpu) // 2]:.1f} s", megabytes(row["peak_rss_bytes"]),
        f"{row['open_s']:g} s", "-" if psnr is None else f"{psnr:.1f} dB", str(len(seconds)),
    )  # fmt: skip


def rows_chart(data: Data, width: int) -> str:
    """A bar for each engine at 512x512, or at the first size where that was not measured."""
    found = _rows_at(data, _TRAINED)
    shape = _TRAINED if found else (data["sizes"][0]["width"], data["sizes"][0]["height"])
    drawn = [
        Bar(_name(key), row["median_s"], min(_flat(row["seconds"])), max(_flat(row["seconds"])), _family(key))
        for key, row in _rows_at(data, shape).items()
    ]
    return bars(drawn, "s", width, f"seconds for one frame of {shape[0]}x{shape[1]}, thin lines from least to most")


def growth_chart(data: Data, width: int) -> str | None:
    """Seconds over megapixels of every engine that ran at two sizes or more; None where none did."""
    points: dict[str, list[tuple[float, float]]] = {}
    for size in data["sizes"]:
        for row in size["rows"]:
            if "median_s" in row:
                points.setdefault(row["key"], []).append((size["width"] * size["height"] / 1e6, row["median_s"]))
    curves = [Curve(_name(key), tuple(found), _family(key)) for key, found in points.items() if len(found) > 1]
    if not curves:
        return None
    return growth(curves, "megapixels, log scale", "seconds a frame, log scale", width)


def growth_table(data: Data) -> Table | None:
    """The fit of each engine: what grows as the pixels, what as their square; None without one."""
    fits = data.get("growth") or {}
    if not fits:
        return None
    head = ("growth", "s for each 512x512 of pixels", "s for its square", "fit off by at most", "attention's share",
            "of the arithmetic", "s a TFLOP, smallest to largest size")  # fmt: skip
    rows = [
        (_name(key), f"{fit['seconds_per_512x512_of_pixels']:g}", f"{fit['seconds_per_its_square']:g}",
         f"{max(abs(r) for r in fit['residuals']):.1%}", f"{fit['attention_share']:.1%}",
         f"{fit['attention_share_of_flop']:.1%}", ", ".join(f"{s:.2f}" for s in fit["seconds_per_tflop"]))
        for key, fit in fits.items()
    ]  # fmt: skip
    return head, rows


def _rows_at(data: Data, shape: tuple[int, int]) -> dict[str, Data]:
    """The measured rows of one size, by key."""
    return {
        row["key"]: row
        for size in data["sizes"] if (size["width"], size["height"]) == shape
        for row in size["rows"] if "median_s" in row
    }  # fmt: skip


def _name(key: str) -> str:
    return NAMES.get(key, key)


def _family(key: str) -> int:
    return next((number for number, name in enumerate(_FAMILIES) if key.startswith(name)), len(_FAMILIES))


def _flat(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [value for round_ in rounds for value in round_]


def _times(ratio: Mapping[str, float]) -> str:
    return f"{ratio['value']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _verdict(met: bool) -> str:
    return _MET if met else _NOT_MET
