"""docs/performance.md says what the files in benchmarks/results say, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import edgeturbo
import pytest
from edgeturbo.benchmarks.performance_blocks import BLOCKS
from edgeturbo.benchmarks.performance_page import made_page, read_results, write_page
from edgeturbo.benchmarks.report.study_charts import Bar, Curve, bars, growth
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


def test_the_page_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    made, charts = made_page(text, read_results(RESULTS))
    hint = "run python -m edgeturbo.benchmarks.performance_page"
    assert made == text, hint
    for name, chart in charts.items():
        assert (PAGE.parent / name).read_text(encoding="utf-8") == chart, f"{name}: {hint}"
    drawn = {path.name for path in (PAGE.parent / "images").glob("performance_*")}
    assert drawn == {Path(name).name for name in charts}


def test_the_page_has_every_block_and_its_own_links_lead_somewhere():
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"made:begin ([a-z-]+)", text)) == sorted(BLOCKS)
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert target.startswith("report/") or (PAGE.parent / target).exists(), target


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
    assert "| time against PyTorch eager | at most 0.6x | 0.50x (0.45 to 0.55), ours, OpenVINO f32 | met |" in text
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
