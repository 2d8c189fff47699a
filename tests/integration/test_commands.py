"""What a user meets at the command line: defaults, batches, bad input, and that nothing is lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from edgeturbo.engines.bundle import Bundle
from edgeturbo.export.demo import demo_base, demo_checkpoint, demo_frames
from PIL import Image
from shared import once
from terminal import Turbo
from tiny import GOLDEN

SMALL = ("--base", str(GOLDEN / "base"), "--size", "64x64", "--parity-frames", "1", "--engine", "onnx")
EXPORT = "import sys; sys.argv = {words}\nfrom edgeturbo.cli.export import main\nmain()"
A2B = ("--direction", "a2b", "--prompt", "driving in the night")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo checkpoint as ``make demo`` exports it, but smaller: FP16, batch 2, with an RTX plan for two targets."""
    words = ["turbo-export", "--ckpt", demo_checkpoint(), "--base", demo_base(), "--size", "192x128", "--batch", "2"]

    def make(folder: Path) -> None:
        # A child process, so that its log (the builder's too) stays out of the tests' capture.
        code = EXPORT.format(words=[*map(str, words), "--out", str(folder / "bundle")])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "demo", make) / "bundle"


def test_the_demo_is_exact_and_holds_a_plan_for_both_targets(demo: Path) -> None:
    bundle = Bundle.open(demo)
    assert bundle.manifest.parity.psnr_db >= 40
    assert bundle.manifest.range_ledger.warnings == ()
    (plan,) = bundle.manifest.engines
    assert plan.targets == ("sm_89", "sm_120")
    text = bundle.verified("engine.plan").read_bytes()
    assert b"sm89" in text
    assert b"sm120" in text
    assert sum(entry.bytes for name, entry in bundle.manifest.files.items() if name.startswith("goldens/")) <= 4_000_000
    assert "goldens/1_image.png" in bundle.manifest.files


def test_a_known_name_needs_no_other_flag_than_its_base(demo: Path) -> None:
    model = Bundle.open(demo).manifest.model
    assert (model.direction, model.prompt) == ("a2b", "driving in the night")


def test_the_demo_turns_day_into_night_and_keeps_the_details(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    assert turbo("turbo-run", demo, demo_frames()[0], tmp_path / "night.png").code == 0
    frame, night_image = Image.open(demo_frames()[0]), Image.open(tmp_path / "night.png")
    assert frame.size == night_image.size
    # The day as sharp as this bundle's size lets any picture be: what is lost by resizing is not the model's loss.
    seen = frame.resize((192, 128), Image.Resampling.LANCZOS).resize(frame.size, Image.Resampling.LANCZOS)
    day, night = (np.asarray(picture.convert("L"), float) for picture in (seen, night_image))
    assert night.mean() < 0.6 * day.mean()
    # Edges stay where they were: the gradients' magnitudes go together.
    edges = [np.hypot(*np.gradient(picture)).ravel() for picture in (day, night)]
    assert np.corrcoef(*edges)[0, 1] > 0.5


def test_a_folder_in_batches_equals_single_pictures(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(3):
        random = np.random.default_rng(index)
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(frames / f"{index}.png")
    assert turbo("turbo-run", demo, frames, tmp_path / "together").code == 0
    for index in range(3):
        assert turbo("turbo-run", demo, frames / f"{index}.png", tmp_path / f"alone{index}.png").code == 0
        together, alone = tmp_path / "together" / f"{index}.png", tmp_path / f"alone{index}.png"
        np.testing.assert_array_equal(np.asarray(Image.open(together)), np.asarray(Image.open(alone)))


def test_a_named_plan_never_falls_back(turbo: Turbo, demo: Path) -> None:
    from edgeturbo.engines.cuda import driver_problem

    if driver_problem() is None:
        pytest.skip("an NVIDIA driver is here: the plan may run")
    ended = turbo("turbo-run", demo / "engine.plan", demo_frames()[0])
    assert ended.code == 4
    assert "no NVIDIA driver" in ended.err
    assert str(demo) in ended.err


def test_inspect_says_what_a_bundle_is_and_what_was_not_checked(turbo: Turbo, demo: Path) -> None:
    ended = turbo("turbo-inspect", demo / "engine.plan")
    assert ended.code == 0
    for text in (
        "cyclegan-turbo",
        "192x128, batch 2",
        "frame uint8 [2, 128, 192, 3]",
        "sm_89, sm_120",
        "no NVIDIA driver",
    ):
        assert text in ended.out
    assert json.loads(turbo("turbo-inspect", demo, "--json").out)["model"]["direction"] == "a2b"


def test_inspect_says_what_a_checkpoint_is(turbo: Turbo) -> None:
    ended = turbo("turbo-inspect", GOLDEN / "pix2pix_stochastic.pkl")
    assert ended.code == 0
    assert "pix2pix-turbo, stochastic" in ended.out
    assert "scale 2" in ended.out


def test_a_damaged_bundle_is_refused_and_inspected(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(demo, broken)
    data = bytearray((broken / "generator.onnx.data").read_bytes())
    data[1000] ^= 1
    (broken / "generator.onnx.data").write_bytes(data)
    ended = turbo("turbo-run", broken, demo_frames()[0], tmp_path / "image.png")
    assert ended.code == 3
    assert "was changed after the export" in ended.err
    assert not (tmp_path / "image.png").exists()
    assert "was changed after the export" in turbo("turbo-inspect", broken).out


def test_the_pytorch_engine_shows_the_reference(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    frame = tmp_path / "frame.png"
    Image.open(demo_frames()[0]).resize((192, 128)).save(frame)
    words = ("--engine", "pytorch", "--ckpt", demo_checkpoint(), "--base", demo_base())
    assert turbo("turbo-run", demo, frame, tmp_path / "torch.png", *words).code == 0
    assert turbo("turbo-run", demo, frame, tmp_path / "onnx.png").code == 0
    torch_image, onnx_image = (np.asarray(Image.open(tmp_path / f"{name}.png"), int) for name in ("torch", "onnx"))
    assert np.abs(torch_image - onnx_image).max() <= 6
    ended = turbo("turbo-run", demo, frame, tmp_path / "x.png", "--engine", "pytorch")
    assert (ended.code, "--ckpt" in ended.err) == (2, True)
    ended = turbo(
        "turbo-run", demo, frame, tmp_path / "x.png", "--engine", "pytorch", "--ckpt", GOLDEN / "cyclegan.pkl"
    )
    assert (ended.code, "is not the checkpoint" in ended.err) == (2, True)


def test_json_is_one_line_and_nothing_else(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    ended = turbo("turbo-run", demo, demo_frames()[0], tmp_path / "image.png", "--json", "--engine", "onnxruntime")
    assert (ended.err, ended.out.count("\n")) == ("", 1)
    assert json.loads(ended.out)["engine"] == "onnxruntime"
    ended = turbo("turbo-run", demo, tmp_path / "nothing.jpg", "--json")
    assert ended.code == 3
    assert json.loads(ended.out)["exit_code"] == 3


def test_quiet_says_nothing(turbo: Turbo, demo: Path, tmp_path: Path) -> None:
    ended = turbo("turbo-run", demo, demo_frames()[0], tmp_path / "image.png", "--quiet")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL), 2, "--direction a2b"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, "--direction", "a2b"), 2, "--prompt"),
        (("--ckpt", GOLDEN / "pix2pix.pkl", *SMALL), 2, "--prompt"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--size", "100x64"), 2, "--size 96x64"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--size", "big"), 2, "512x512"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--engine", "auto", "--target", "sm_87"), 2, "Orin"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--engine", "tensorrt"), 4, "tensorrt-rtx"),
        (("--ckpt", GOLDEN / "nothing.pkl", *SMALL), 3, "is not a file"),
        (("--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--base", "/nowhere"), 3, "neither a folder nor a hub id"),
    ],
)
def test_wrong_use_says_what_to_type(turbo: Turbo, tmp_path: Path, words: tuple, code: int, says: str) -> None:
    ended = turbo("turbo-export", *words, "--out", tmp_path / "bundle")
    assert (ended.code, says in ended.err, "Traceback" in ended.err) == (code, True, False), ended.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(turbo: Turbo, tmp_path: Path) -> None:
    ended = turbo("turbo-export", "--ckpt", tmp_path / "nothing.pkl", "--debug")
    assert (ended.code, "Traceback" in ended.err) == (3, True)


class _Touch:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (os.system, (f"touch {self.path}",))


def test_a_checkpoint_cannot_run_code(turbo: Turbo, tmp_path: Path) -> None:
    sentinel = tmp_path / "ran"
    torch.save({"sd_encoder": _Touch(sentinel)}, tmp_path / "zip.pkl")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"sd_encoder": _Touch(sentinel)}))
    for name in ("zip.pkl", "plain.pkl"):
        ended = turbo("turbo-export", "--ckpt", tmp_path / name, *SMALL, *A2B, "--out", tmp_path / "bundle")
        assert (ended.code, "may run code" in ended.err) == (3, True), ended.err
    assert not sentinel.exists()


def test_an_output_below_a_file_is_refused_before_any_work(turbo: Turbo, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "bundle"
    ended = turbo("turbo-export", "--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--out", out)
    assert (ended.code, "a file stands where a folder is needed" in ended.err) == (2, True), ended.err


def _start_export(out: Path, *more: str) -> subprocess.Popen[str]:
    words = ["turbo-export", "--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--out", out, "--force", *more]
    code = EXPORT.format(words=[str(word) for word in words])
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_leaves_the_earlier_bundle(
    demo: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(demo, out)
    before = (out / "manifest.json").read_bytes()
    child = _start_export(out)
    for line in child.stderr:
        if line.startswith("save ONNX"):
            break
    child.send_signal(ending)
    _, rest = child.communicate(timeout=120)
    assert child.returncode == 130, rest
    assert "interrupted" in rest
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_the_earlier_bundle(demo: Path, tmp_path: Path) -> None:
    """Run under a limit on file sizes, which is a full disk to whoever writes (EFBIG) and needs no privileges."""
    out = tmp_path / "bundle"
    shutil.copytree(demo, out)
    before = (out / "manifest.json").read_bytes()
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000,) * 2)"
    )
    words = ["turbo-export", "--ckpt", GOLDEN / "cyclegan.pkl", *SMALL, *A2B, "--out", out, "--force"]
    code = limit + "\n" + EXPORT.format(words=[str(word) for word in words])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "no space left" in done.stderr) == (6, True), done.stderr
    assert (out / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_help_of_every_command_answers_without_heavy_libraries() -> None:
    for command in ("export", "build", "run", "bench", "inspect"):
        code = (
            f"import sys; sys.argv = ['turbo-{command}', '--help']\nfrom edgeturbo.cli.{command} import main\n"
            f"try: main()\nexcept SystemExit as end: assert not end.code\n"
            "heavy = {'torch', 'diffusers', 'onnx', 'onnxruntime', 'cv2', 'tensorrt_rtx', 'numpy'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_two_exports_of_the_same_thing_are_the_same_files(tmp_path: Path) -> None:
    child = _start_export(tmp_path / "one")
    second = _start_export(tmp_path / "two")
    for process in (child, second):
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
    one, two = (Bundle.open(tmp_path / name).manifest.files for name in ("one", "two"))
    assert {name: entry.sha256 for name, entry in one.items()} == {name: entry.sha256 for name, entry in two.items()}
