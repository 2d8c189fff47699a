"""Plans built into bundles, for real: OpenVINO's are run here, TensorRT for RTX's are built for GPUs elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.engines import device, reuse
from edgeturbo.engines.bundle import MANIFEST, ONNX, Bundle, StagedBundle
from edgeturbo.engines.errors import BuildError, DeviceError, MissingComponentError, ParityError, UsageError
from edgeturbo.engines.select import choose, open_engine
from edgeturbo.export import plans
from edgeturbo.export.events import Event
from edgeturbo.export.plans import BuildOptions, add_plan, backend_here, renew_plan
from PIL import Image

pytest.importorskip("openvino", reason="the plans that are run here are OpenVINO's")
pytest.importorskip("tensorrt_rtx", reason="the other plans are TensorRT for RTX's")

OPENVINO, RTX = BuildOptions("openvino"), BuildOptions("tensorrt-rtx", targets=("sm_89",))


@pytest.fixture
def bundle(make_bundle, make_frame) -> Bundle:
    return with_golden(make_bundle(), make_frame(), lambda frame: 255 - frame)


def with_golden(bundle: Bundle, frame: np.ndarray, translate) -> Bundle:
    folder = bundle.root / "goldens"
    folder.mkdir(exist_ok=True)
    Image.fromarray(frame).save(folder / "0_frame.png")
    Image.fromarray(translate(frame)).save(folder / "0_image.png")
    return StagedBundle(bundle.root).seal(bundle.manifest)


def add(bundle: Bundle, options: BuildOptions, **changes: object):
    events: list[Event] = []
    report = add_plan(Bundle.open(bundle.root), replace(options, **changes), events.append)
    return report, events


def files(bundle: Bundle) -> dict[str, bytes]:
    return {str(p.relative_to(bundle.root)): p.read_bytes() for p in bundle.root.rglob("*") if p.is_file()}


def test_a_plan_is_built_checked_on_the_device_and_runs(bundle, make_frame):
    report, events = add(bundle, OPENVINO)
    entry = report.entry
    assert (report.built, entry.plan, entry.backend, entry.targets) == (True, "engine.plan", "openvino", ("cpu",))
    assert (entry.parity.psnr_db, entry.parity.max_levels, entry.parity.frames) == (None, 0, 1)
    assert any("goldens" in sentence for sentence in entry.checked)
    assert "parity on this device" in [event.text for event in events]
    opened = Bundle.open(bundle.root)
    assert opened.manifest.engines == (entry,)
    for name in ("engine.plan", "build.log", "reproduce.sh"):
        opened.verified(name)
    frame = make_frame(seed=5)
    with open_engine(choose(bundle.root / "engine.plan")) as engine:
        np.testing.assert_array_equal(engine.run({"frame": frame[None]})["image"][0], 255 - frame)
    assert not (bundle.root / ".building").exists()


def test_a_plan_that_is_as_good_is_not_built_again(bundle):
    for options in (OPENVINO, RTX):
        first, _ = add(bundle, options)
        before = files(bundle)
        again, _ = add(bundle, options)
        assert (again.built, again.entry) == (False, first.entry)
        assert again.reason.startswith("nothing to do: ")
        assert files(bundle) == before
        forced, _ = add(bundle, options, force=True)
        assert (forced.built, forced.reason) == (True, "built again, as asked")
        assert len([e for e in Bundle.open(bundle.root).manifest.engines if e.backend == options.backend]) == 1


def test_other_options_or_another_version_build_again(bundle, monkeypatch):
    add(bundle, OPENVINO)
    other, _ = add(bundle, OPENVINO, precision="bf16")
    assert other.built
    assert "precision=f32" in other.reason
    assert "precision=bf16" in other.reason
    monkeypatch.setattr(reuse, "_version", {"openvino": "2031.1", "tensorrt": None, "tensorrt-rtx": None}.get)
    newer, _ = add(bundle, OPENVINO, precision="bf16")
    assert newer.built
    assert "here is OpenVINO 2031.1" in newer.reason


def test_a_second_backend_gets_a_folder_of_its_own(bundle):
    add(bundle, OPENVINO)
    report, _ = add(bundle, RTX)
    entry = report.entry
    assert entry.plan == f"engines/tensorrt-rtx-{entry.version}-sm_89/engine.plan"
    opened = Bundle.open(bundle.root)
    assert {e.backend for e in opened.manifest.engines} == {"openvino", "tensorrt-rtx"}
    script = (opened.root / entry.plan).with_name("reproduce.sh").read_text()
    assert "--onnx ../../generator.onnx" in script
    opened.verified(entry.plan)


@pytest.mark.skipif(device.gpu() is not None, reason="this machine has an NVIDIA GPU")
def test_what_could_not_be_checked_here_is_said(bundle):
    report, _ = add(bundle, RTX)
    assert report.entry.parity is None
    assert any("goldens" in sentence and "no NVIDIA driver" in sentence for sentence in report.entry.unchecked)


def test_wrong_pictures_are_refused_and_nothing_changes(bundle, make_frame):
    add(bundle, OPENVINO)
    wrong = with_golden(Bundle.open(bundle.root), make_frame(), lambda frame: frame)
    before = files(wrong)
    with pytest.raises(ParityError, match="openvino") as caught:
        add(wrong, OPENVINO, force=True)
    assert "PSNR" in caught.value.got
    assert files(wrong) == before


def test_a_slightly_wrong_picture_is_a_warning(bundle, make_frame):
    def noisy(frame):
        return np.clip(255 - frame.astype(int) + np.where(np.arange(64) % 16 == 0, 3, 0)[None, :, None], 0, 255).astype(
            np.uint8
        )

    report, events = add(with_golden(bundle, make_frame(), noisy), OPENVINO)
    assert 50 < report.entry.parity.psnr_db < 60
    assert [event for event in events if event.kind == "warning"]


def test_a_bundle_without_goldens_says_that_nothing_was_compared(make_bundle):
    report, _ = add(make_bundle(), OPENVINO)
    assert report.entry.parity is None
    assert "the pictures: the bundle has no goldens" in report.entry.unchecked


def test_an_interrupted_build_leaves_the_bundle_as_it_was(bundle):
    add(bundle, OPENVINO)
    before = files(bundle)

    def interrupt(event: Event) -> None:
        if event.text.startswith("build plan:"):
            raise KeyboardInterrupt

    for stage in (
        interrupt,
        lambda event: interrupt(Event("stage", "build plan:")) if "parity" in event.text else None,
    ):
        with pytest.raises(KeyboardInterrupt):
            add_plan(Bundle.open(bundle.root), replace(OPENVINO, force=True), stage)
        assert files(bundle) == before


def test_a_crash_between_moving_and_entering_leaves_a_bundle_that_is_whole(bundle, monkeypatch):
    add(bundle, OPENVINO)

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(plans, "add_files", crash)
    with pytest.raises(KeyboardInterrupt):
        add(bundle, OPENVINO, force=True)
    opened = Bundle.open(bundle.root)
    assert not opened.manifest.engines
    for name in opened.manifest.files:
        opened.verified(name)


def test_a_build_that_fails_leaves_its_log_where_the_error_says(bundle, monkeypatch):
    monkeypatch.setattr(plans, "refuse_too_little_memory", lambda _: None)
    damaged = bundle.root / ONNX
    damaged.write_bytes(b"no graph at all")
    spoilt = StagedBundle(bundle.root).seal(bundle.manifest)
    before = files(spoilt)
    with pytest.raises(BuildError) as caught:
        add(spoilt, RTX)
    log = bundle.root / "build-failed.log"
    assert str(log) in caught.value.hint
    assert log.is_file()
    assert {name: data for name, data in files(spoilt).items() if name != log.name} == before


def test_too_little_memory_is_refused_before_anything_is_made(bundle, monkeypatch):
    monkeypatch.setattr(device, "memory", lambda: device.HostMemory(1 << 20, 1 << 10, 0))
    before = files(bundle)
    with pytest.raises(DeviceError, match="too little memory"):
        add(bundle, RTX)
    assert files(bundle) == before
    assert add(bundle, RTX, ignore_memory=True)[0].built


# One at a time


def test_what_a_killed_build_left_is_cleared_away(bundle):
    left = bundle.root / ".building"
    left.mkdir()
    (left / "pid").write_text("999999999")
    (left / "engine.plan").write_bytes(b"half")
    assert add(bundle, OPENVINO)[0].built
    assert not left.exists()


def test_two_builds_at_once_are_refused(bundle):
    busy = bundle.root / ".building"
    busy.mkdir()
    (busy / "pid").write_text(str(os.getppid()))
    with pytest.raises(UsageError, match="another turbo-build") as caught:
        add(bundle, OPENVINO)
    assert str(busy) in caught.value.hint
    assert (busy / "pid").exists()


# What cannot be meant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions("openvino", targets=("sm_89",)), "this machine's CPU"),
        (BuildOptions("tensorrt-rtx", targets=("sm_89",), precision="bf16"), "only openvino"),
        (BuildOptions("tensorrt-rtx", targets=("sm_87",)), "does not support sm_87"),
        (BuildOptions("tensorrt-rtx", targets=("sm_89",), timing_cache=Path("t.cache")), "timing cache"),
        (BuildOptions("tensorrt-rtx", targets=("sm_89",), optimization_level=9), "optimization level"),
        (BuildOptions("openvino", preset="toaster"), "no preset"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(bundle, options, message):
    with pytest.raises(UsageError, match=message):
        add(bundle, options)


@pytest.mark.skipif(device.gpu() is not None, reason="this machine has an NVIDIA GPU")
def test_tensorrt_is_missed_by_name(bundle):
    with pytest.raises(MissingComponentError, match="tensorrt is not installed") as caught:
        add(bundle, BuildOptions("tensorrt"))
    assert "python3-libnvinfer" in caught.value.hint


def test_what_is_installed_decides_when_nothing_is_said(monkeypatch):
    monkeypatch.setattr(reuse, "_version", {"openvino": "1", "tensorrt": "10.3", "tensorrt-rtx": "1.7"}.get)
    monkeypatch.setattr(device, "gpu", lambda: None)
    assert backend_here() == "tensorrt-rtx"
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu("Orin", "sm_87", "540", 8 << 30))
    assert backend_here() == "tensorrt"
    monkeypatch.setattr(reuse, "_version", lambda _: None)
    with pytest.raises(MissingComponentError, match="nothing that builds plans"):
        backend_here()


@pytest.mark.skipif(device.gpu() is not None, reason="this machine has an NVIDIA GPU")
def test_there_is_nothing_to_renew_where_no_plan_could_run(bundle):
    add(bundle, RTX)
    assert renew_plan(bundle.root, "auto", lambda _: None) is None


def test_a_plan_that_does_not_fit_is_renewed_where_a_gpu_could_run_it(bundle, monkeypatch):
    """The machine's answers are replaced: a GPU is here, and the plan is another version's."""
    old = add(bundle, RTX)[0].entry
    monkeypatch.setattr(plans, "plan_problem", lambda *_: "built with TensorRT for RTX 1.5.0")
    monkeypatch.setattr(plans, "unusable_reason", lambda _: None)
    monkeypatch.setattr(device, "gpu", lambda: device.Gpu("NVIDIA GeForce RTX 4090", "sm_89", "570.1", 24 << 30))
    monkeypatch.setattr(plans, "unfit_reason", lambda *_: "the GPU is not really here")
    for engine in ("onnxruntime", "tensorrt"):
        assert renew_plan(bundle.root, engine, lambda _: None) is None
    report = renew_plan(bundle.root / "engine.plan", "auto", lambda _: None)
    assert report.built
    assert (report.entry.plan, report.entry.built_on.gpu) == (old.plan, "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(plans, "plan_problem", lambda *_: None)
    assert renew_plan(bundle.root, "auto", lambda _: None) is None


def test_a_build_needs_no_training_framework(bundle):
    """As on a device: the packages of an export cannot be imported."""
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'peft', 'onnx', 'onnxscript', 'onnx_ir', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['turbo-build', {str(bundle.root)!r}, '--engine', 'tensorrt-rtx', '--target', 'sm_89', '--json']\n"
        "from edgeturbo.cli.build import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"plan": "engine.plan"' in done.stdout
    assert (bundle.root / MANIFEST).is_file()
