"""What the project set itself, and whether it was reached: a figure, or plainly that nobody measured it yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .common import PYTORCH_COMMON
from .engine_stages import OURS
from .record import DONE, Row, StageRecord

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"

_EAGER_FACTOR, _RIVAL_FACTOR = 4.0, 1.5
_CEILING_SHARE = 0.60
_OVERHEAD_MS = 0.5
_DEVICE_BYTES = 2_600_000_000
_PARITY_DB = 40.0

# The rivals by the stages that measure them; a rival without a row leaves "the best of them" open.
_RIVALS = {
    "torch.compile": ("compile", "compile-max-autotune"),
    "ONNX Runtime": ("onnxruntime-cuda",),
    "three engines": ("three-engines",),
}


@dataclass(frozen=True)
class Target:
    """``wanted`` and ``got`` in words; ``verdict`` is ``met``, ``not met`` or ``not measured``."""

    name: str
    wanted: str
    got: str
    verdict: str


def targets(records: Mapping[str, StageRecord]) -> tuple[Target, ...]:
    """The project's targets for the full-size generator, judged by these stages' records, by medians."""
    stage, ours = _ours(records)
    common = records[stage].common if stage else None
    return (
        _over_eager(ours, common),
        _over_rivals(ours, common, records),
        _of_ceiling(ours, records),
        _overhead(ours),
        _memory(ours),
        _parity(ours),
    )


def share_of_ceiling(row: Row, records: Mapping[str, StageRecord]) -> float | None:
    """The row's arithmetic a second over the ceiling's; None when the ceiling or the arithmetic is not known."""
    ceiling = _figure(records, "ceiling", "ceiling_tflops")
    work = _figure(records, "prepare-weights", "total_tflop")
    if ceiling is None or work is None or row.precision == "none":
        return None
    return work / (row.engine.p50_ms / 1e3) / ceiling


def _ours(records: Mapping[str, StageRecord]) -> tuple[str | None, Row | None]:
    for stage in ("tensorrt", "tensorrt-rtx"):
        rows = records[stage].rows if stage in records else ()
        for row in rows:
            if row.name.startswith(OURS) and row.ratio is not None:
                return stage, row
    return None, None


def _over_eager(ours: Row | None, common: str | None) -> Target:
    name, wanted = "against PyTorch eager FP16 (merged, prompt kept)", f"at least {_EAGER_FACTOR:g}x"
    if ours is None or ours.ratio is None or common != PYTORCH_COMMON:
        return Target(name, wanted, "-", NOT_MEASURED)
    got = f"{ours.ratio.value:.2f}x ({ours.ratio.low:.2f} to {ours.ratio.high:.2f})"
    return Target(name, wanted, got, _verdict(ours.ratio.value >= _EAGER_FACTOR))


def _over_rivals(ours: Row | None, common: str | None, records: Mapping[str, StageRecord]) -> Target:
    name, wanted = "against the best of torch.compile, ONNX Runtime and three engines", f"at least {_RIVAL_FACTOR:g}x"
    reached = {rival: _best(records, stages, common) for rival, stages in _RIVALS.items()}
    known = {rival: value for rival, value in reached.items() if value is not None}
    if ours is None or ours.ratio is None or not known:
        return Target(name, wanted, "-", NOT_MEASURED)
    best = max(known, key=lambda rival: known[rival])
    factor = ours.ratio.value / known[best]
    missing = [rival for rival in _RIVALS if rival not in known]
    got = f"{factor:.2f}x against {best}" + (f"; without {', '.join(missing)}" if missing else "")
    if factor >= _RIVAL_FACTOR and missing:
        return Target(name, wanted, got, NOT_MEASURED)
    return Target(name, wanted, got, _verdict(factor >= _RIVAL_FACTOR))


def _best(records: Mapping[str, StageRecord], stages: tuple[str, ...], common: str | None) -> float | None:
    """How many times as fast as the common row the fastest row of ``stages`` is."""
    ratios = [
        row.ratio.value
        for stage in stages
        if stage in records and records[stage].common == common
        for row in records[stage].rows
        if row.ratio is not None
    ]
    return max(ratios, default=None)


def _of_ceiling(ours: Row | None, records: Mapping[str, StageRecord]) -> Target:
    name, wanted = "of the measured matrix-product ceiling", f"at least {_CEILING_SHARE:.0%}"
    share = share_of_ceiling(ours, records) if ours else None
    if share is None:
        return Target(name, wanted, "-", NOT_MEASURED)
    return Target(name, wanted, f"{share:.1%}", _verdict(share >= _CEILING_SHARE))


def _overhead(ours: Row | None) -> Target:
    name, wanted = "host overhead over the engine's time, a frame", f"under {_OVERHEAD_MS:g} ms"
    if ours is None:
        return Target(name, wanted, "-", NOT_MEASURED)
    overhead = ours.frame.p50_ms - ours.engine.p50_ms
    return Target(name, wanted, f"{overhead:.3f} ms", _verdict(overhead < _OVERHEAD_MS))


def _memory(ours: Row | None) -> Target:
    name, wanted = "device memory", f"at most {_DEVICE_BYTES / 1e9:g} GB"
    if ours is None or ours.device_bytes is None:
        return Target(name, wanted, "-", NOT_MEASURED)
    return Target(name, wanted, f"{ours.device_bytes / 1e9:.2f} GB", _verdict(ours.device_bytes <= _DEVICE_BYTES))


def _parity(ours: Row | None) -> Target:
    name, wanted = "against unmerged FP32 PyTorch", f"at least {_PARITY_DB:g} dB"
    if ours is None or ours.parity is None:
        return Target(name, wanted, "-", NOT_MEASURED)
    if ours.parity.psnr_db is None:
        return Target(name, wanted, "equal", MET)
    return Target(name, wanted, f"{ours.parity.psnr_db:.1f} dB", _verdict(ours.parity.psnr_db >= _PARITY_DB))


def _figure(records: Mapping[str, StageRecord], stage: str, name: str) -> float | None:
    record = records.get(stage)
    return (record.figures or {}).get(name) if record is not None and record.state == DONE else None


def _verdict(reached: bool) -> str:
    return MET if reached else NOT_MET
