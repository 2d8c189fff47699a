"""The parent's side of the measures with weights: a stand-in plays the child, where torchvision and weights would be.

LPIPS, Clean-FID and DINO themselves are not run by these tests: nothing here has their weights. Of the real child, its
protocol, its arithmetic and its refusals are tested.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.benchmarks.metrics_child import child, measure
from edgeturbo.benchmarks.metrics_child.measure import PictureSets, run_metrics
from edgeturbo.benchmarks.metrics_child.weights import NO_WEIGHTS, WEIGHTED, metrics_available
from edgeturbo.engines.errors import DeviceError, UsageError

CHILD = Path(child.__file__)
PYTHON = Path(sys.executable)


@pytest.fixture
def sets(make_frame) -> PictureSets:
    pictures = [make_frame(16, 16, seed) for seed in range(2)]
    return PictureSets(pictures, pictures, pictures)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """Files of the right names; their publisher's digest is not asked of them."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for one in WEIGHTED.values():
        (folder / one.file).write_bytes(b"not weights")
    lpips = WEIGHTED["lpips"]
    monkeypatch.setitem(WEIGHTED, "lpips", type(lpips)(lpips.title, lpips.unit, lpips.file, lpips.source))
    return folder


# Why a measure is not run.


def test_without_weights_every_measure_says_so_and_nothing_is_started(sets, monkeypatch):
    monkeypatch.setattr(measure, "_CHILD", Path("/nothing/may/start/this"))
    for python in (None, PYTHON):
        metrics = run_metrics(sets, None, python)
        assert metrics.figures == {}
        assert set(metrics.not_run) == set(WEIGHTED)
        assert all(reason.startswith(NO_WEIGHTS) for reason in metrics.not_run.values())
        assert all("--metric-weights" in reason for reason in metrics.not_run.values())


def test_a_missing_file_of_weights_is_named_with_its_publisher(weights):
    (weights / "dino_vitbase8_pretrain.pth").unlink()
    reasons = metrics_available(weights, PYTHON)
    assert reasons["clean_fid"] is None
    assert reasons["dino_struct"].startswith(NO_WEIGHTS)
    assert "dino_vitbase8_pretrain.pth" in reasons["dino_struct"]
    assert "https://" in reasons["dino_struct"]


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path):
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"something else")
    reason = metrics_available(tmp_path, PYTHON)["lpips"]
    assert "not the published file" in reason
    assert "7be5be79" in reason


def test_with_none_of_the_files_nothing_is_started(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "_CHILD", Path("/nothing/may/start/this"))
    metrics = run_metrics(sets, tmp_path, PYTHON)
    assert metrics.figures == {}
    assert all(reason.startswith(NO_WEIGHTS) for reason in metrics.not_run.values())


def test_without_an_environment_it_says_how_to_make_one(weights, sets):
    metrics = run_metrics(sets, weights, None)
    assert all("edgeturbo[metrics]" in reason for reason in metrics.not_run.values())
    assert set(metrics.not_run) == set(WEIGHTED)


def test_paths_that_are_not_there_are_wrong_use(tmp_path, weights):
    with pytest.raises(UsageError, match="weights"):
        metrics_available(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="interpreter"):
        metrics_available(weights, tmp_path / "python")


def test_sets_must_go_together(make_frame):
    one = make_frame(8, 8)
    for bad in (PictureSets([], []), PictureSets([one], [one, one]), PictureSets([one, one], [one, one], [one])):
        with pytest.raises(UsageError, match="go together"):
            run_metrics(bad, None, None)


# The protocol, with a stand-in for the child.


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    def make(code: str) -> None:
        path = tmp_path / "stand_in.py"
        path.write_text(
            "import json, os, sys\n"
            "def say(event, **fields): print(json.dumps({'event': event, **fields}), flush=True)\n"
            "options = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n" + code
        )
        monkeypatch.setattr(measure, "_CHILD", path)

    return make


GOOD = """
say('progress', measure='lpips', done=1, of=2)
say('measured', measure='lpips', series={'reference-engine': [0.25, 0.75]}, versions={'lpips': '0.1.4'})
say('measured', measure='clean_fid', series={'reference-engine': [3.5]}, versions={})
say('not_run', measure='dino_struct', reason='not run: dino_struct needs a package: no timm')
say('done')
"""


def test_figures_reasons_and_progress_arrive(stand_in, sets, weights):
    stand_in(GOOD)
    heard = []
    metrics = run_metrics(sets, weights, PYTHON, lambda *told: heard.append(told))
    assert heard == [("lpips", 1, 2)]
    assert metrics.frames == 2
    assert metrics.figures["lpips"].series == {"reference-engine": (0.25, 0.75)}
    assert metrics.figures["lpips"].mean == {"reference-engine": 0.5}
    assert metrics.figures["lpips"].versions == {"lpips": "0.1.4"}
    assert metrics.figures["clean_fid"].title == "Clean-FID"
    assert metrics.not_run == {"dino_struct": "not run: dino_struct needs a package: no timm"}
    assert json.loads(json.dumps(metrics.as_json(), allow_nan=False))["frames"] == 2


def test_the_child_gets_the_pictures_without_loss_and_only_what_can_run(stand_in, sets, weights, tmp_path):
    (weights / WEIGHTED["clean_fid"].file).unlink()
    seen = tmp_path / "seen"
    stand_in(f"import shutil; shutil.copytree(options['--pictures'], {str(seen)!r})\n"
             f"open({str(tmp_path / 'options')!r}, 'w').write(json.dumps(options))\n"
             "for name in options['--measures'].split(','): say('not_run', measure=name, reason='not run: x')\n"
             "say('done')\n")  # fmt: skip
    metrics = run_metrics(sets, weights, PYTHON)
    options = json.loads((tmp_path / "options").read_text())
    assert options["--measures"] == "lpips,dino_struct"
    assert options["--weights"] == str(weights)
    assert metrics.not_run["clean_fid"].startswith(NO_WEIGHTS)
    from edgeturbo.runtime.image import load_frame

    assert sorted(path.name for path in (seen / "input").iterdir()) == ["000000.png", "000001.png"]
    assert np.array_equal(load_frame(seen / "engine" / "000001.png"), sets.engine[1])
    assert not (seen / "target").exists()
    assert not Path(options["--pictures"]).exists()  # the temporary folder is gone


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('hello')", "protocol"),
        ("say('surprise')", "protocol"),
        ("say('measured', measure='lpips')", "protocol"),
        ("say('measured', measure='unheard', series={}, versions={})", "protocol"),
        ("say('done'); raise SystemExit(3)", "exit code 3"),
        ("print('why it failed', file=sys.stderr); os._exit(0)", "exit code 0"),
        ("say('done')", "said nothing of lpips, clean_fid, dino_struct"),
        ("print('{\"event\": \"done\"}', end='')", "exit code 0"),
    ],
)
def test_a_child_that_misbehaves_is_an_error_not_a_silence(stand_in, sets, weights, code, words):
    stand_in(code)
    with pytest.raises(DeviceError, match=words):
        run_metrics(sets, weights, PYTHON)


def test_the_error_has_the_childs_last_words(stand_in, sets, weights):
    stand_in("print('why it failed', file=sys.stderr); raise SystemExit(1)")
    with pytest.raises(DeviceError) as caught:
        run_metrics(sets, weights, PYTHON)
    assert "why it failed" in caught.value.got


def test_an_interpreter_that_cannot_start_is_an_error(sets, weights, tmp_path):
    broken = tmp_path / "python"
    broken.write_bytes(b"\x00\x01")
    broken.chmod(0o755)
    with pytest.raises(DeviceError, match="cannot start the process of the measures"):
        run_metrics(sets, weights, broken)


# The real child, as far as it goes without weights.


def test_the_real_child_reports_a_package_or_weights_that_it_cannot_use(sets, weights):
    """Here nothing is installed for it, or the files are no weights: either way each measure has its reason."""
    metrics = run_metrics(sets, weights, PYTHON)
    assert metrics.figures == {}
    assert set(metrics.not_run) == set(WEIGHTED)
    for name, reason in metrics.not_run.items():
        assert reason.startswith(f"not run: {name} ")


def test_the_real_child_needs_two_pictures_for_a_covariance(weights, make_frame):
    one = [make_frame(16, 16)]
    assert "two or more" in run_metrics(PictureSets(one, one), weights, PYTHON).not_run["clean_fid"]


def test_a_library_that_prints_does_not_break_the_protocol(tmp_path):
    (tmp_path / "lpips.py").write_text(
        "import os; print('Setting up'); os.write(1, b'from C\\n'); raise ImportError('x')"
    )
    command = [sys.executable, str(CHILD), "--weights", "w", "--pictures", "p", "--measures", "lpips"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path), "PATH": ""}
    )
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert events == ["not_run", "done"]
    assert "from C" in done.stderr


def test_the_child_imports_nothing_of_this_package_and_nothing_heavy_by_itself():
    code = (
        "import runpy, sys; before = set(sys.modules); "
        f"runpy.run_path({str(CHILD)!r}); "
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} & "
        "{'edgeturbo', 'torch', 'torchvision', 'numpy', 'PIL', 'lpips', 'timm', 'cleanfid'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_structure_distance_has_known_answers():
    keys = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert child.structure_distance(keys, keys * 5) == 0.0  # cosines know no length
    # Orthogonal tokens against equal ones: two of the four cosines differ by 1.
    assert child.structure_distance(keys, np.ones((2, 2))) == pytest.approx(0.5)
    turned = keys @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert child.structure_distance(keys, turned) == pytest.approx(0.0)  # a common rotation keeps all angles
    assert child.structure_distance(np.zeros((2, 2)), np.zeros((2, 2))) == 0.0


def test_the_keys_are_the_middle_third_with_the_heads_side_by_side():
    """As the vision transformer's own split: tokens, (q, k, v), heads, width of a head."""
    tokens, heads, width = 5, 3, 4
    qkv = np.arange(tokens * 3 * heads * width, dtype=float).reshape(tokens, -1)
    split = qkv.reshape(tokens, 3, heads, width).transpose(1, 2, 0, 3)[1]  # heads, tokens, width
    assert np.array_equal(child.keys_of(qkv), split.transpose(1, 0, 2).reshape(tokens, -1))
