"""docs/performance.md and docs/precision.md say what the files in benchmarks/results say, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import edgeturbo
import pytest
from edgeturbo.benchmarks.performance_blocks import BLOCKS
from edgeturbo.benchmarks.performance_page import PAGES, made_page, read_results, write_page
from edgeturbo.benchmarks.report.study_charts import Bar, Curve, Point, bars, growth, scatter, unbeaten
from edgeturbo.engines.errors import InputError, UsageError

ROOT = Path(edgeturbo.__file__).parent
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"
MACHINE = {"cpu": "a CPU", "cores": 2, "system": "Linux", "python": "3.11", "load_before": 5.0, "busy": "it was busy"}


def row(key: str, seconds: float, eager: float, rss: int = 6_000_000_000) -> dict:
    value = seconds / eager
    return {
        "key": key, "seconds": [[seconds], [seconds * 1.1]], "cpu_seconds": [[2 * seconds], [2 * seconds]],
        "median_s": seconds, "ratio_to_eager": {"value": value, "low": value * 0.9, "high": value * 1.1},
        "psnr_to_eager_db": 60.0, "peak_rss_bytes": rss, "open_s": 3.0, "note": "",
    }  # fmt: skip


def sizes(ours: float = 5.0, rss: int = 6_000_000_000) -> dict:
    """Two sizes; at 512x512 eager took 10 s and three graphs 5 s."""
    rows = [row("pytorch-fp32", 10, 10), row("openvino-f32", ours, 10, rss), row("three-openvino-f32", 5, 10)]
    small = [row("pytorch-fp32", 2.5, 2.5), {"key": "openvino-bf16", "note": "no such instruction"}]
    fit = {
        "seconds_per_512x512_of_pixels": 4.5, "seconds_per_its_square": 0.5, "residuals": [0.02, -0.03],
        "attention_share": 0.1, "attention_share_of_flop": 0.05, "seconds_per_tflop": [2.2, 2.3],
    }  # fmt: skip
    return {
        "environment": MACHINE, "growth": {"pytorch-fp32": fit},
        "sizes": [{"width": 256, "height": 256, "tflop": 1.1, "rows": small},
                  {"width": 512, "height": 512, "tflop": 4.468, "rows": rows}],
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_page_is_up_to_date(page):
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    made, charts = made_page(text, read_results(RESULTS))
    hint = "run python -m edgeturbo.benchmarks.performance_page"
    assert made == text, hint
    assert charts
    for name, chart in charts.items():
        assert (path.parent / name).read_text(encoding="utf-8") == chart, f"{name}: {hint}"
    drawn = {drawing.name for drawing in (path.parent / "images").glob(f"{path.stem}_*.svg")}
    assert drawn == {Path(name).name for name in charts}


def test_the_pages_have_every_block_once_and_their_own_links_lead_somewhere():
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in PAGES}
    assert sorted(name for text in texts.values() for name in re.findall(r"made:begin ([a-z-]+)", text)) == sorted(
        BLOCKS
    )
    for path, text in texts.items():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert target.startswith("report/") or (ROOT / path.parent / target).exists(), target


def test_pictures_of_the_pages_are_small():
    pictures = list((ROOT / "docs" / "images").glob("*.jpg"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size <= 250_000, picture.name


def test_the_demos_report_is_small_and_has_what_pages_show_of_it():
    folder = ROOT / "docs" / "report"
    if not folder.exists():
        pytest.skip("docs/report is not made yet: make report")
    assert (folder / "index.html").stat().st_size < 1_500_000
    for page in (PAGE, ROOT / "README.md"):
        links = re.findall(r"\]\(((?:docs/)?report/[^)#]+)\)", page.read_text(encoding="utf-8"))
        assert links
        for target in links:
            assert (page.parent / target).exists(), target


def made(results: dict, *names: str) -> str:
    page = "\n".join(f"<!-- made:begin {name} -->\nold\n<!-- made:end {name} -->" for name in names or BLOCKS)
    text, _ = made_page(page, results)
    return text


def test_what_was_not_measured_says_how_to():
    text = made({})
    assert "old" not in text
    assert text.count("Not measured yet: `") == len(BLOCKS) - 1
    assert "No GPU has been measured yet" in text


def test_sizes_are_judged_tabled_and_drawn():
    text, charts = made_page("<!-- made:begin cpu-sizes -->\n<!-- made:end cpu-sizes -->", {"cpu_sizes": sizes()})
    assert "eager, as exported | at most 0.6x | 0.50x (0.45 to 0.55), ours, OpenVINO f32 | met |" in text
    assert "1.00x, ours, OpenVINO f32 against three graphs, OpenVINO f32 | met |" in text
    assert "| peak resident memory | at most 7,000 MB | 6,000 MB | met |" in text
    assert "not measured: no such instruction" in text
    assert "**Read with care: it was busy.**" in text
    assert "5.00 to 5.50 s" in text
    for name in ("images/performance_cpu_sizes.svg", "images/performance_growth.svg"):
        assert f"]({name})" in text
        assert ET.fromstring(charts[name]).tag.endswith("svg")  # noqa: S314 -- our own


def test_targets_that_were_missed_say_so():
    text = made({"cpu_sizes": sizes(ours=7.0, rss=8_000_000_000)}, "cpu-sizes")
    assert text.count("**not met**") == 3


def test_a_machine_with_a_gpu_ends_the_excuse(tmp_path: Path):
    summary = {"model": "full", "device": "cuda", "targets": [], "stages": []}
    (tmp_path / "nvidia-test-1.json").write_text(json.dumps(summary))
    page = tmp_path / "page.md"
    page.write_text("<!-- made:begin gpu -->\n<!-- made:end gpu -->\n<!-- gpu-check:more -->\n")
    assert write_page(page, tmp_path) == [page]
    text = page.read_text()
    assert "No GPU has been measured" not in text
    assert "Measured on: nvidia-test-1." in text
    assert "### nvidia-test-1" in text
    write_page(page, tmp_path)
    assert page.read_text() == text


def test_unknown_blocks_and_damaged_figures_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="a block mine that nobody makes"):
        made({}, "mine")
    (tmp_path / "stream.json").write_text("{")
    with pytest.raises(InputError, match="cannot read the figures in"):
        read_results(tmp_path)


def test_bars_are_as_long_as_their_values():
    chart = bars([Bar("a", 10.0, 9.0, 12.0), Bar("b < c", 6.0, 6.0, 6.0)], "s", 690, "name")
    wide = [float(w) for w in re.findall(r'width="([\d.]+)" height="16.0"', chart)]
    assert wide == [300.0, 180.0]
    assert "b &lt; c" in chart


def test_curves_of_one_family_differ_in_dashes_and_the_key_shows_them():
    curves = [Curve(name, ((1.0, 1.0), (2.0, 2.0)), family) for name, family in (("a", 0), ("b", 0), ("c", 1))]
    styles = re.findall(r'<polyline points="[^"]+" ([^/]+)/>', growth(curves, "x", "y", 800))
    assert len(set(styles)) == 3
    assert re.findall(r'<path d="[^"]+" ([^/]+)/>', growth(curves, "x", "y", 800))[:3] == styles


def test_what_grows_in_proportion_lies_along_the_dashed_line():
    chart = growth([Curve("even", ((1.0, 2.0), (4.0, 8.0)))], "x", "y", 800)
    (points,) = re.findall(r'<polyline points="([^"]+)"', chart)
    (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in points.split())
    dashed = re.search(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" stroke="var\(--faint\)"', chart)
    assert dashed is not None
    a1, b1, a2, b2 = map(float, dashed.groups())
    assert (y2 - y1) / (x2 - x1) == pytest.approx((b2 - b1) / (a2 - a1), rel=0.01)


def estimate(ms: float, name: str) -> dict:
    return {"name": name, "ms": ms, "ms_low": ms / 2, "ms_high": ms * 2, "note": ""}


def precision(name: str, psnr: float, ms: float, error: str | None = None, **more) -> dict:
    """A row of the study of precisions; an RTX 4090 takes a quarter of an AGX Orin's ``ms``."""
    row = {"precision": name, "key": name, "size": [512, 512], "plans": {}, "quantisation": None, **more}
    row["export"] = {
        "seconds": 900.0,
        "cpu_seconds": 600.4,
        "peak_rss_bytes": 9e9,
        "error": error,
        "stages": {"quantise": 77.0},
    }
    if error:
        return row
    devices = {"agx-orin": estimate(ms, "AGX Orin"), "rtx-4090": estimate(ms / 4, "RTX 4090")}
    parity = {"psnr_db": psnr, "ssim": 0.99}
    return {**row, "onnx_bytes": 2e9, "data_bytes": 1.8e9, "predicted": devices, "parity": parity}


def eight(**more) -> dict:
    return {"conv_share": 0.987, "method": "mse", "blocks": ["a"], "sensitivity": [{}, {}], "front": [], **more}


def test_a_full_size_precision_is_tabled_and_one_below_the_floor_says_so():
    plan = {"tensorrt-rtx": {"seconds": 400, "cpu_seconds": 300, "peak_rss_bytes": 4e9, "error": None, "bytes": 933e6}}
    error = "the bundle does not compute what PyTorch computes expected: PSNR of at least 25 dB got: 21.5 dB try: fp16"
    rows = [precision("fp16", 58.5, 283), precision("int8", 31, 202, quantisation=eight(), plans=plan),
            precision("fp8", 0, 0, error)]  # fmt: skip
    data = {"precisions": {"full_size": {"rows": rows, "environment": MACHINE}}}
    text = made(data, "precisions-full-size", "precisions-devices")
    _, charts = made_page("<!-- made:begin precisions-devices -->\n<!-- made:end precisions-devices -->", data)
    (chart,) = charts.values()
    assert re.findall(r"<title>([^<]+)<", chart) == ["283, 58.5", "202, 31", "70.75, 58.5", "50.5, 31"]
    assert (
        "| int8 | 512x512 | 1,800 MB | 933 MB | 98.7% | 31.0 dB | 0.9900 | 600 s | 9,000 MB | 300 s | 4,000 MB |"
        in text
    )
    assert "| fp8 | 512x512 | - | - | - | **refused**: 21.5 dB; wanted: PSNR of at least 25 dB |" in text
    assert "| int8 | 202 (101 to 404) | 50.5 (25.2 to 101) |" in text
    assert "](images/precision_pareto.svg)" in text


def test_a_device_without_units_for_a_format_is_named():
    row = precision("fp8", 40, 290)
    row["predicted"]["agx-orin"]["no_unit"] = True
    text = made({"precisions": {"full_size": {"rows": [row], "environment": MACHINE}}}, "precisions-devices")
    assert "| fp8 | 290 (145 to 580), no unit for it there | 72.5 (36.2 to 145) |" in text


def test_the_demos_precisions_say_the_worst_picture_and_what_could_not_run():
    quality = {"worst_psnr_db": 34.1, "median_psnr_db": None, "worst_ssim": 0.95}
    times = {"p50_ms": 80.0, "ratio_to_fp16": {"value": 1.5, "low": 1.4, "high": 1.6}}
    demo = {
        "rows": [precision("int8", 50, 20, quantisation=eight(method=""))], "frames": "10", "environment": MACHINE,
        "quality": {"onnxruntime": {"int8": quality}, "openvino": {"int8": {"not_run": "no such type"}}},
        "times": {"engines": {"onnxruntime": {"int8": times}, "openvino": {"int8": {"not_run": "no such type"}}},
                  "stopped": "after 8 rounds", "environment": MACHINE},
    }  # fmt: skip
    text = made({"precisions": {"demo": demo}}, "precisions-demo", "precisions-cpu")
    assert "| 98.7%, weights alone | 34.1, equal dB | 0.9500 | not run: no such type |" in text
    assert "| int8 | 80 ms | 1.50 (1.40 to 1.60) | not run: no such type | - |" in text


def test_a_mixture_shows_its_front_and_what_was_taken():
    def point(ms, predicted, measured, *blocks):
        return {"blocks": list(blocks), "ms": ms, "predicted_db": predicted, "measured_db": measured}

    front = [point(100, None, None), point(80, 45.0, 44.8, "a"), point(70, 33.0, None, "a", "b")]
    found = eight(front=front, device="agx-orin", min_psnr_db=35.0)
    rows = [precision("mixed:int8", 44, 80, quantisation=found), precision("mixed:fp8", 0, 0, "no mixture is faster")]
    text = made({"precisions": {"full_size": {"rows": rows}}}, "precisions-mixed")
    assert "1 of 2 blocks, 98.7% of the convolutions' arithmetic, 100 to 80 ms predicted, 44.8 dB measured" in text
    assert "| 0 | 100 | none departs | - |" in text
    assert "| 1, **taken** | 80 | 45.0 dB | 44.8 dB |" in text
    assert "Refused: no mixture is faster" in text


def test_points_lie_by_their_values_and_the_unbeaten_are_joined():
    points = [Point("slow", 100.0, 60.0, "a"), Point("quick", 10.0, 40.0, "a"), Point("bad", 50.0, 30.0, "a")]
    assert unbeaten(points) == points[:2]
    assert unbeaten([*points, Point("as quick", 10.0, 35.0, "a")]) == points[:2]
    chart = scatter(points, "x", "y", 800, "name")
    dot = r'<circle cx="([\d.]+)" cy="([\d.]+)" r="4"[^>]*><title>[^<]*</title></circle><text[^>]*>(\w+)<'
    dots = {name: (float(x), float(y)) for x, y, name in re.findall(dot, chart)}
    middle = dots["quick"][0] + (dots["slow"][0] - dots["quick"][0]) * 0.69897  # log10(50 / 10)
    assert dots["bad"][0] == pytest.approx(middle, abs=0.2)
    assert dots["quick"][1] == pytest.approx((dots["slow"][1] * 1 + dots["bad"][1] * 2) / 3, abs=0.2)
    (rule,) = re.findall(r'y2="([\d.]+)" class="rule"/><text x="50.0"[^>]*>40<', chart)
    assert float(rule) == dots["quick"][1]
    joined = re.findall(r'<polyline points="([^"]+)"', chart)
    assert joined == ["{:.1f},{:.1f} {:.1f},{:.1f}".format(*dots["quick"], *dots["slow"])]
