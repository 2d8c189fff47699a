"""What the study of precisions reads off a bundle and measures of it: bytes, estimates, pictures, milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.bundle import ONNX, ONNX_DATA, Bundle
from ..engines.costs import COSTS, read_costs
from ..engines.errors import EdgeTurboError
from ..engines.parity import psnr, rounded_db, ssim
from ..engines.select import ONNXRUNTIME, OPENVINO, choose
from ..runtime.image import load_frame
from .apart import call_apart, run_apart
from .devices import Device
from .feeds import cases_of_frames, image_of
from .latency import Latency, StoppingRule, measure_until, ratio
from .predict import predict
from .rows import RowPlan, Setting, plan_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..engines.manifest import Manifest, Quantisation

ENGINES = (ONNXRUNTIME, OPENVINO)
AGAINST = "fp16"
_EIGHT_BITS = {"int8": "int8", "fp8": "float8_e4m3fn"}  # a precision's word and its products' type in a cost table


def facts_of(folder: Path, devices: Iterable[Device]) -> dict[str, Any]:
    """What a bundle says of itself, and what the roofline says of it on each of ``devices``."""
    manifest = Bundle.open(folder).manifest
    return {
        "onnx_bytes": sum(manifest.files[name].bytes for name in (ONNX, ONNX_DATA)),
        "data_bytes": manifest.files[ONNX_DATA].bytes,
        "parity": None if manifest.parity is None else asdict(manifest.parity),
        "quantisation": None if manifest.quantisation is None else _quantisation(manifest.quantisation),
        "predicted": predicted(folder, manifest, devices),
    }


def predicted(folder: Path, manifest: Manifest, devices: Iterable[Device]) -> dict[str, Any]:
    """Milliseconds by device: the roofline's range, and ``no_unit`` where it has none for these eight bits."""
    costs = read_costs(folder / COSTS)
    found = {}
    for device in devices:
        estimate = predict(costs, device)
        without = lacks(device, manifest.model.precision)
        found[device.key] = {
            "name": device.name, "ms": round(estimate.ms, 3), "ms_low": round(estimate.ms_low, 3),
            "ms_high": round(estimate.ms_high, 3), "note": estimate.note, **({"no_unit": True} if without else {}),
        }  # fmt: skip
    return found


def lacks(device: Device, precision: str) -> bool:
    """Whether ``device`` multiplies that precision's eight bits no faster than FP16: it has no unit for them."""
    dtype = _EIGHT_BITS.get(precision.rpartition(":")[2])
    return dtype is not None and device.peak(dtype) <= device.peak("float16")


def _quantisation(found: Quantisation) -> dict[str, Any]:
    return {
        "products": found.products, "of": found.of, "conv_share": found.conv_share, "frames": found.frames,
        "method": found.method, "device": found.device, "min_psnr_db": found.min_psnr_db,
        "blocks": list(found.blocks), "front": [asdict(mixture) for mixture in found.front],
        "sensitivity": [asdict(block) for block in found.sensitivity],
    }  # fmt: skip


def judged_frames(pictures: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Each picture as a whole and its four quarters: pictures that no scale was calibrated on."""
    frames: list[NDArray[np.uint8]] = []
    for path in pictures:
        whole = load_frame(path)
        high, wide = whole.shape[0] // 2, whole.shape[1] // 2
        corners = [(top, left) for top in (0, high) for left in (0, wide)]
        quarters = [whole[top : top + high, left : left + wide] for top, left in corners]
        frames += [np.ascontiguousarray(frame) for frame in (whole, *quarters)]
    return frames


def pytorch_images(bundle: Path, ckpt: Path, base: str, frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What the unmerged PyTorch model makes of ``frames`` in FP32, uint8 [N, H, W, 3]; in a process of its own."""
    return call_apart(_pytorch_images, bundle, ckpt, base, frames)


def _pytorch_images(bundle: Path, ckpt: Path, base: str, frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    from ..export.oracle import pytorch_engine

    opened = Bundle.open(bundle)
    with pytorch_engine(bundle, ckpt, base) as oracle:
        return np.stack([image_of(opened, oracle, case) for case in cases_of_frames(opened, frames)])


def engine_images(bundle: Path, engine: str, frames: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What ``engine`` makes of ``frames``, uint8 [N, H, W, 3]; in a process of its own. Raises EdgeTurboError."""
    cases = cases_of_frames(Bundle.open(bundle), frames)
    with run_apart(Setting(bundle), _row(bundle, engine), cases[0]) as runner:
        return np.stack(runner.images(cases))


def quality_of(exact: NDArray[np.uint8], got: NDArray[np.uint8]) -> dict[str, Any]:
    """PSNR in dB and SSIM of each picture against the exact one, uint8 [N, H, W, 3]; the worst and median of each.

    A PSNR of None is infinite: the pictures are equal.
    """
    pairs = list(zip(exact, got, strict=True))
    decibels, alike = [psnr(a, b) for a, b in pairs], [ssim(a, b) for a, b in pairs]
    return {
        "psnr_db": [rounded_db(value) for value in decibels], "ssim": [round(value, 5) for value in alike],
        "worst_psnr_db": rounded_db(min(decibels)), "median_psnr_db": rounded_db(float(np.median(decibels))),
        "worst_ssim": round(min(alike), 5), "median_ssim": round(float(np.median(alike)), 5),
    }  # fmt: skip


def times_of(bundles: Mapping[str, Path], frame: NDArray[np.uint8], rule: StoppingRule) -> dict[str, Any]:
    """Milliseconds a frame of every bundle with each of ENGINES, all in turns, each in a process of its own.

    ``engines`` by name: for each precision its median and quartiles, its ratio to FP16's with the 95 % interval, or
    ``not_run``: why there is none.
    """
    refused: dict[str, dict[str, str]] = {engine: {} for engine in ENGINES}
    with ExitStack() as stack:
        calls = {}
        for precision, bundle in bundles.items():
            case = cases_of_frames(Bundle.open(bundle), [frame])[0]
            for engine in ENGINES:
                try:
                    runner = stack.enter_context(run_apart(Setting(bundle), _row(bundle, engine), case))
                except EdgeTurboError as error:
                    refused[engine][precision] = error.what
                else:
                    calls[f"{engine} {precision}"] = runner.once
        measured = measure_until(calls, rule, warmup=2)
    figures = {engine: _figures(engine, measured.latencies) for engine in ENGINES}
    rows = {engine: {**figures[engine], **_not_run(refused[engine])} for engine in ENGINES}
    return {"engines": rows, "stopped": measured.stopped}


def _figures(engine: str, latencies: Mapping[str, Latency]) -> dict[str, Any]:
    base = latencies.get(f"{engine} {AGAINST}")
    mine = {key.partition(" ")[2]: latency for key, latency in latencies.items() if key.partition(" ")[0] == engine}
    return {
        precision: {
            "p50_ms": latency.p50_ms, "min_ms": latency.min_ms, "p95_ms": latency.p95_ms, "n": latency.n,
            "ratio_to_fp16": None if base is None else asdict(ratio(latency, base)),
        }
        for precision, latency in mine.items()
    }  # fmt: skip


def _not_run(refused: Mapping[str, str]) -> dict[str, Any]:
    return {precision: {"not_run": why} for precision, why in refused.items()}


def _row(bundle: Path, engine: str) -> RowPlan:
    """The row that opens ``bundle`` with ``engine``. Raises EdgeTurboError where the engine cannot run it."""
    choose(bundle, engine)  # says why not, in its own words
    rows, _ = plan_rows(Setting(bundle), ENGINES)
    return next(row for row in rows if row.choice is not None and row.choice.backend == engine)
