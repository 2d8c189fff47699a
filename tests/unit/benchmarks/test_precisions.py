"""The study of precisions: its arithmetic, its picture, its commands, and one row of it on a tiny generator."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edgeturbo.benchmarks import precisions_rows
from edgeturbo.benchmarks.commands import Ran, run_command
from edgeturbo.benchmarks.devices import DEVICES
from edgeturbo.benchmarks.precisions_figures import judged_frames, lacks, quality_of
from edgeturbo.benchmarks.precisions_picture import strip
from edgeturbo.benchmarks.precisions_rows import Study, made_row, rows_of
from edgeturbo.benchmarks.synthetic import TINY, write_base, write_cyclegan
from edgeturbo.engines.errors import UsageError
from edgeturbo.export.demo import demo_frames
from edgeturbo.runtime.image import load_frame

GREY = np.full((3, 32, 32, 3), 100, np.uint8)


def study(work, *precisions, **more) -> Study:
    return Study(work / "cyclegan.pkl", work / "base", work, (64, 64), precisions, **more)


def test_the_worst_picture_and_the_median_one_are_told_apart():
    got = GREY.copy()
    got[1] += 1
    got[2] += 10
    found = quality_of(GREY, got)
    assert found["psnr_db"] == [None, 48.13, 28.13]
    assert (found["worst_psnr_db"], found["median_psnr_db"]) == (28.13, 48.13)
    assert found["ssim"][0] == 1.0
    assert found["worst_ssim"] == min(found["ssim"]) < found["median_ssim"]


def test_pictures_that_are_equal_have_no_psnr():
    found = quality_of(GREY, GREY)
    assert (found["worst_psnr_db"], found["median_psnr_db"], found["worst_ssim"]) == (None, None, 1.0)


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("agx-orin", "fp8", True),
        ("agx-orin", "mixed:fp8", True),
        ("agx-orin", "int8", False),
        ("agx-orin", "fp16", False),
        ("rtx-4090", "fp8", False),
        ("thor", "mixed:fp8", False),
    ],
)
def test_a_device_without_units_for_a_format_is_known(device, precision, expected):
    assert lacks(DEVICES[device], precision) == expected


def test_judged_are_the_photographs_and_their_quarters():
    frames = judged_frames(demo_frames()[:1])
    whole = load_frame(demo_frames()[0])
    assert len(frames) == 5
    assert np.array_equal(frames[0], whole)
    high, wide = whole.shape[0] // 2, whole.shape[1] // 2
    assert np.array_equal(frames[2], whole[:high, wide : 2 * wide])
    assert np.array_equal(frames[4], whole[high : 2 * high, wide : 2 * wide])


def test_the_strip_shows_each_crop_over_ten_times_its_difference():
    exact, other = GREY[0], GREY[0].copy()
    other[10, 12] = (103, 100, 99)
    sheet = np.asarray(strip(exact, {"exact": exact, "other": other}, (8, 8, 24, 24)))
    assert sheet.shape == (26 + 2 * (32 + 6), 2 * 32 + 6, 3)
    assert (sheet[26:58, :32] == 100).all()
    assert (sheet[64:96, :32] == 128).all()
    row, column = 64 + 2 * (10 - 8), 38 + 2 * (12 - 8)
    assert sheet[row, column].tolist() == [158, 128, 118]
    assert (sheet[64:96, 38:] != 128).any(axis=-1).sum() == 4  # one pixel, twice as large


def test_an_unknown_precision_is_refused_and_mixtures_of_two_devices_are_two(tmp_path):
    with pytest.raises(UsageError, match="--precision"):
        study(tmp_path, "int4")
    names = {study(tmp_path, device=device).name("mixed:int8") for device in ("agx-orin", "rtx-4090")}
    assert len(names) == 2


def test_a_command_that_fails_says_why_on_one_line(tmp_path):
    ran = run_command("build", [str(tmp_path / "nothing")])
    assert ran.exit != 0
    assert "nothing" in ran.error
    assert "\n" not in ran.error
    assert ran.seconds > 0
    assert 0 < ran.cpu_seconds < 60


def test_what_is_recorded_is_not_made_again_and_a_refusal_is_recorded(tmp_path, monkeypatch):
    ran = []

    def run(command, words):
        ran.append((command, words))
        return Ran(5, 2.0, 1.5, 10, {"message": "no\n  got: 20.0 dB", "exit_code": 5})

    monkeypatch.setattr(precisions_rows, "run_command", run)
    wanted = study(tmp_path, "mixed:int8", "fp32", plans=("tensorrt-rtx",), calibrate=tmp_path, min_psnr=41)
    for _ in range(2):
        rows = [made_row(wanted, name, lambda _: None) for name in wanted.precisions]
    assert [command for command, _ in ran] == ["export", "export"]
    mixed, exact = (" ".join(words) for _, words in ran)
    assert "--precision mixed:int8" in mixed
    assert "--device agx-orin --min-psnr 41 --calibrate" in mixed
    assert "--calibrate" not in exact
    cost = {"seconds": 2.0, "cpu_seconds": 1.5, "peak_rss_bytes": 10, "error": "no got: 20.0 dB"}
    assert rows[0]["export"] == {**cost, "stages": {}}
    assert [row["precision"] for row in rows_of(tmp_path)] == ["fp32", "mixed:int8"]


def test_mixtures_of_two_devices_have_names_of_their_own(tmp_path):
    for number, device in enumerate(("agx-orin", "rtx-4090")):
        row = {"precision": "mixed:int8", "size": [64, 64], "quantisation": {"device": device}}
        precisions_rows.write_json(tmp_path / "rows" / f"{number}.json", row)
    found = [(row["key"], row["bundle"]) for row in rows_of(tmp_path)]
    assert found == [("mixed:int8 for agx-orin", "0"), ("mixed:int8 for rtx-4090", "1")]


def test_a_row_of_a_tiny_generator_from_end_to_end(tmp_path):
    write_base(tmp_path / "base", TINY)
    write_cyclegan(tmp_path / "base", tmp_path / "cyclegan.pkl")
    wanted = study(tmp_path, "int8-weights", plans=("openvino",), keep=False)
    row = made_row(wanted, "int8-weights", lambda _: None)
    assert row["export"]["error"] is None
    assert row["export"]["peak_rss_bytes"] > 100e6
    assert 0 < row["data_bytes"] < row["onnx_bytes"]
    assert row["quantisation"]["conv_share"] > 0.2
    assert row["parity"]["psnr_db"] > 30
    assert row["predicted"]["agx-orin"]["ms"] > row["predicted"]["rtx-4090"]["ms"] > 0
    assert row["plans"]["openvino"]["bytes"] > 0
    assert not wanted.bundle("int8-weights").exists()
    key = {"key": "int8-weights", "bundle": "int8-weights-64x64"}
    assert rows_of(tmp_path) == [{**key, **json.loads(json.dumps(row))}]
