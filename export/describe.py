"""What ``turbo-inspect`` says of a bundle, a plan or a checkpoint, as plain nested data."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engines.bundle import Bundle
from ..engines.costs import COSTS, Share, by_kind, by_stage, most_expensive, read_costs
from ..engines.errors import EdgeTurboError, InputError, UsageError
from ..engines.manifest import EngineEntry, FrameLayout, Manifest, RangeLedger, Repair
from ..engines.select import choose, plan_problem
from .figures import figure

if TYPE_CHECKING:
    from .checkpoints.checkpoint import Checkpoint, NetworkDelta

_CHECKPOINT_SUFFIXES = (".pkl", ".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def describe(path: Path) -> dict[str, Any]:
    """Nested dictionaries, lists and scalars, ready for JSON. Raises InputError for what is neither."""
    if not path.exists():
        raise InputError(f"{path} does not exist", expected="a bundle, a plan or a checkpoint")
    if path.is_file() and (path.suffix in _CHECKPOINT_SUFFIXES or zipfile.is_zipfile(path)):
        from .checkpoints import read_checkpoint
        from .session import require_export_packages

        require_export_packages()
        return _of_checkpoint(read_checkpoint(path))
    return _of_bundle(Bundle.open(path), path)


def _of_bundle(bundle: Bundle, path: Path) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.root),
        "model": _model(manifest),
        "inputs": [str(spec) for spec in manifest.inputs],
        "outputs": [str(spec) for spec in manifest.outputs],
        "parity": _parity(manifest),
        "ranges": _ranges(manifest),
        **_costs(bundle),
        "plans": _plans(bundle),
        "files": [f"{name}  {entry.bytes:,} bytes" for name, entry in manifest.files.items()],
        "problems with its files": _problems(bundle),
        "provenance": _provenance(manifest),
        "would run here": _would_run(path),
    }


def _model(manifest: Manifest) -> dict[str, Any]:
    model, rules, layout = manifest.model, manifest.frame_rules, manifest.frame_layout
    return {
        "family": model.family,
        "direction": model.direction or "none",
        "prompt": model.prompt,
        "strength": "none" if model.strength is None else model.strength,
        "posterior": model.posterior,
        "size": f"{model.width}x{model.height}, batch {model.batch}",
        "precision": f"{model.precision}, {len(manifest.fp32_islands)} FP32 nodes"
        if manifest.fp32_islands
        else model.precision,
        "opset": model.opset,
        "passes": ", ".join(model.passes) or "none",
        "camera's frame": "none: the host resizes" if layout is None else _layout(layout),
        "frame": f"{rules.input_prep}, {rules.resize}",
    }


def _layout(layout: FrameLayout) -> str:
    kinds = f"{layout.format} to {layout.output_format}"
    return f"{layout.width}x{layout.height} {kinds}, {layout.matrix} {layout.range}"


def _parity(manifest: Manifest) -> dict[str, Any]:
    parity = manifest.parity
    if parity is None:
        return {"figures": "none"}
    return {
        "reference": parity.reference,
        "frames": parity.frames,
        "largest difference": parity.max_abs,
        "PSNR dB": "equal" if parity.psnr_db is None else parity.psnr_db,
        "SSIM": parity.ssim,
        "PyTorch's own BF16, PSNR dB": "equal" if parity.bf16_psnr_db is None else parity.bf16_psnr_db,
    }


def _ranges(manifest: Manifest) -> dict[str, Any]:
    ledger = manifest.range_ledger
    if ledger is None:
        return {"ledger": "none: not an FP16 graph"}
    return {
        "checked": _checked(ledger),
        "limit": f"{ledger.limit:,.0f}, to be left free by a factor of {ledger.margin:g}",
        "hottest": [f"{entry.largest:,.1f}  {entry.tensor}" for entry in ledger.hottest[:5]],
        "warnings": [f"{entry.largest:,.1f}  {entry.tensor}" for entry in ledger.warnings],
        "repairs": [told(repair) for repair in ledger.repairs],
    }


def describe_ranges(path: Path) -> dict[str, Any]:
    """What ``turbo-inspect --ranges`` says: the hottest tensors of an FP16 bundle by stage, and what was repaired.

    Raises InputError for what is no bundle, UsageError for one without a ledger.
    """
    ledger = Bundle.open(path).manifest.range_ledger
    if ledger is None:
        raise UsageError(f"{path} has no range ledger: its graph is not FP16", hint="turbo-export --precision fp16")
    entries = ledger.by_stage or ledger.hottest
    return {
        "bundle": str(path),
        "checked": _checked(ledger),
        "limit": ledger.limit,
        "margin": ledger.margin,
        "stages": {
            stage: [
                f"{entry.largest:,.1f}  room {_headroom(entry.largest, ledger.limit)}  {entry.tensor}"
                for entry in entries
                if entry.stage == stage
            ]
            for stage in dict.fromkeys(entry.stage for entry in entries)
        },
        "warnings": [f"{entry.largest:,.1f}  {entry.tensor}" for entry in ledger.warnings],
        "repairs": [told(repair) for repair in ledger.repairs],
    }


def told(repair: Repair) -> str:
    """A repair in one line: what did not fit, and what was done about it, at which cost."""
    figures = f"{figure(repair.reached)} where {figure(repair.limit)} is the limit"
    reason = f"{repair.tensor}: {repair.problem}, {figures}"
    if repair.kind == "rescale":
        return f"{reason}; times 2^{repair.exponent}, taken back by {repair.node_count} nodes around it, at no cost"
    cost = f"{repair.bytes / 1e6:,.1f} MB more moved, {repair.time_share:.1%} of the time where memory is the limit"
    return f"{reason}; {repair.node_count} nodes compute in FP32 ({cost})"


def _checked(ledger: RangeLedger) -> str:
    frames = f"{ledger.frames} frames" + (f" ({ledger.source})" if ledger.source else "")
    return f"{ledger.tensors} tensors and {ledger.weights} weights over {frames}"


def _headroom(largest: float, limit: float) -> str:
    return f"{figure(limit / largest)}x" if largest else "all"


def _costs(bundle: Bundle) -> dict[str, Any]:
    """Arithmetic and bytes by stage and kind, and the operators with most; engines fuse: what is really moved is less.

    A run is of as many frames as the batch has. Operators that cost the same are one line, after the first of them.
    """
    if COSTS not in bundle.manifest.files:
        return {"costs a run": []}
    costs = read_costs(bundle.verified(COSTS))
    return {
        "costs a run": [_share(share) for share in by_stage(costs)],
        "costs by kind": [_share(share) for share in by_kind(costs)],
        "most expensive operators": [f"{share.nodes} x {_share(share)}" for share in most_expensive(costs)],
    }


def _share(share: Share) -> str:
    return (
        f"{share.name}: {share.flops / 1e9:,.1f} GFLOP, {share.moved / 1e6:,.1f} MB moved, "
        f"{share.weights / 1e6:,.1f} MB of weights"
    )


def _plans(bundle: Bundle) -> dict[str, Any]:
    plans = {}
    for entry in bundle.manifest.engines:
        try:
            problem = plan_problem(bundle, entry)
        except EdgeTurboError as error:
            problem = error.what
        plans[entry.plan] = {
            "built by": f"{entry.backend} {entry.version}",
            "for": ", ".join(entry.targets),
            "checked": list(entry.checked),
            "not checked": list(entry.unchecked),
            "built on": _device(entry),
            "its pictures there": _golden_parity(entry),
            "here": problem or "can run",
        }
    return plans


def _device(entry: EngineEntry) -> str:
    on = entry.built_on
    return "no GPU" if on is None else f"{on.gpu}, {on.sm}, driver {on.driver}"


def _golden_parity(entry: EngineEntry) -> str:
    parity = entry.parity
    if parity is None:
        return "not compared"
    psnr = "equal" if parity.psnr_db is None else f"PSNR {parity.psnr_db} dB"
    return f"{psnr}, SSIM {parity.ssim}, up to {parity.max_levels} grey levels, on {parity.frames} goldens"


def _problems(bundle: Bundle) -> list[str]:
    problems = []
    for name in bundle.manifest.files:
        try:
            bundle.verified(name)
        except EdgeTurboError as error:
            problems.append(error.what)
    return problems


def _provenance(manifest: Manifest) -> dict[str, Any]:
    provenance = manifest.provenance
    return {
        "checkpoint": f"{provenance.checkpoint}, sha256 {provenance.checkpoint_sha256}",
        "base": f"{provenance.base}, {provenance.base_revision}",
        "command": provenance.command,
        "tools": ", ".join(f"{name} {version}" for name, version in provenance.tools.items()),
        "not in the checkpoint": list(provenance.omissions),
    }


def _would_run(path: Path) -> str:
    try:
        return choose(path).reason
    except EdgeTurboError as error:
        return f"nothing: {error.what}"


def _of_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    from .checkpoints.released import released

    known = None
    if implied := released(checkpoint.path, checkpoint.family):
        known = f"{implied.direction or 'paired'}, prompt {implied.prompt!r}, {implied.input_prep}"
    return {
        "checkpoint": str(checkpoint.path),
        "family": checkpoint.family + (", stochastic" if checkpoint.stochastic else ""),
        "directions": ", ".join(checkpoint.directions) or "one",
        "known by its name as": known or "nothing",
        "unet": _delta(checkpoint.unet),
        "vae": _delta(next(iter(checkpoint.vaes.values()))),
        "not in the checkpoint": list(checkpoint.omissions),
    }


def _delta(delta: NetworkDelta) -> str:
    trained = sum(pair.down.numel() + pair.up.numel() for pair in delta.lora.values())
    return (
        f"LoRA of rank {delta.rank}, scale {delta.lora_scale:g}, on {len(delta.lora)} layers ({trained:,} parameters); "
        f"{len(delta.weights)} whole tensors"
    )
