"""The report: every row in it, nothing from elsewhere, and right in a real browser."""

from __future__ import annotations

import io
import os
import re
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Browser
from edgeturbo.benchmarks.error_map import colour_table
from edgeturbo.benchmarks.predict import Prediction, StageTime
from edgeturbo.benchmarks.report import PAGE, TEXT, as_html, as_markdown, write_report
from edgeturbo.benchmarks.report.charts import Mark, pareto, waterfall
from edgeturbo.benchmarks.report.pictures import png
from edgeturbo.benchmarks.report.svg import standalone
from edgeturbo.benchmarks.result import SWEEP, Shape
from edgeturbo.benchmarks.row_suite import Shown
from edgeturbo.engines.costs import Share
from edgeturbo.engines.errors import OutputExistsError
from made_results import ROWS, result
from PIL import Image

SCREENS = {"desktop": (1280, 900, False), "phone": (390, 844, True)}
SCHEMES = ("light", "dark")


def shown() -> dict[str, Shown]:
    frame, expected, got = (np.full((48, 64, 3), level, np.uint8) for level in (200, 40, 43))
    return {name: Shown(frame, expected, got) for name, _, _ in ROWS}


@pytest.fixture(scope="module")
def page() -> str:
    return as_html(result(), shown())


def test_the_report_names_every_row_and_every_section(page: str):
    text, _ = as_markdown(result(), shown())
    for name, _, _ in ROWS:
        assert name.replace("&", "&amp;") in page
        assert name in text
    titles = ["Latency", "Stages of one picture", "Pictures", "Speed against likeness", "Memory and loading",
              "Throughput", "Energy", "Camera loop", "Roofline", "Not run", "Environment", "The exact command",
    ]  # fmt: skip
    for title in titles:
        assert f"<h2>{title}</h2>" in page
        assert f"## {title}" in text
    for said in ("turbo-bench made-up", "nobody knows how", "3.5", "c0de", "51.5"):
        assert said in page
        assert said in text


def test_nothing_in_it_comes_from_elsewhere(page: str):
    assert re.findall(r"(?i)https?:|//[a-z0-9-]+\.[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)) == []
    assert set(re.findall(r'src="([a-z]+:image/[a-z]+;)', page)) == {"data:image/png;", "data:image/jpeg;"}
    assert len(re.findall(r"<img ", page)) == len(re.findall(r'src="data:', page))
    assert not re.search(r"@import|url\(|<link [^>]*stylesheet|<script [^>]*src", page)


def test_what_comes_from_outside_cannot_become_markup(page: str):
    assert "a &lt;CPU&gt;" in page
    assert "a <CPU>" not in page
    assert "a \\<CPU\\>" in as_markdown(result(), {})[0]


def test_the_markdown_refers_to_files_that_are_there(tmp_path: Path):
    write_report(tmp_path / "report", result(), shown())
    text = (tmp_path / "report" / TEXT).read_text(encoding="utf-8")
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(named) >= 3 * len(ROWS) + 4
    for name in named:
        assert (tmp_path / "report" / name).stat().st_size > 0


def test_the_operators_and_each_stage_of_a_prediction_are_there():
    made = result()
    roofline = replace(made.roofline, kinds=(Share("conv", 2, 10**9, 10**7, 10**6),) * 2,
                       heaviest=(Share("unet/down/conv", 1, 10**9, 10**7, 10**6),))  # fmt: skip
    stage = StageTime("unet", 12.5, "memory")
    predicted = Prediction("a-board", 48, 32, 10, 12.5, 15, 80, (stage,), "memory", 10**9, True, "an estimate")
    text, _ = as_markdown(replace(made, roofline=roofline, predictions=(predicted,)), {})
    for said in ("## Operators by kind", "unet/down/conv", "| 100.0% |", "12.5 ms, memory", "a-board: an estimate."):
        assert said in text


def test_other_sizes_have_a_section_and_no_place_among_the_bundles_own_rows():
    made = result()
    swept = replace(made.rows[1], name="swept", role=SWEEP, shape=Shape(96, 64, 1), stages={}, quality=None)
    page = as_html(replace(made, rows=(*made.rows, swept)), {})
    section = page[page.index("<h2>Sizes and batches</h2>") : page.index("<h2>Roofline</h2>")]
    assert "96x64" in section
    assert "48x32" in section
    charts = page[page.index("<h2>Roofline</h2>") :]
    assert "swept" not in charts[: charts.index("<table")]


def test_an_error_map_survives_as_a_palette_without_loss():
    pictures = [colour_table()[np.random.default_rng(0).integers(0, n, (32, 48))] for n in (1, 3, 256)]
    pictures.append(np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    for picture in pictures:
        with Image.open(io.BytesIO(png(picture))) as found:
            assert np.array_equal(np.asarray(found.convert("RGB")), picture)


def test_an_earlier_report_is_replaced_and_another_folder_is_not(tmp_path: Path):
    write_report(tmp_path / "report", result(), {})
    write_report(tmp_path / "report", result(), shown())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError):
        write_report(tmp_path / "mine", result(), {})
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_bars_are_as_long_as_their_times():
    chart = waterfall([(Mark("a", "bundle"), {"x": 10.0, "y": 30.0})], 416)
    wide = [float(w) for w in re.findall(r'width="([\d.]+)" height="18.0"', chart)]
    assert wide == [100.0, 300.0]


def test_only_what_nothing_beats_is_joined():
    rows = [(Mark("fast", "bundle"), 50.0, 40.0), (Mark("exact", "peer"), 5.0, None), (Mark("poor", "peer"), 4.0, 38.0)]
    (line,) = re.findall(r'<polyline points="([^"]+)"', pareto(rows, 800))
    assert len(line.split()) == 2


def test_a_chart_is_a_file_that_can_stand_alone():
    from xml.etree import ElementTree as ET

    chart = standalone(waterfall([(Mark("a < b", "bundle"), {"x": 1.0})], 400))
    assert ET.fromstring(chart).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 -- our own


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    program = browser.installed()
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(browser.NAMES)} (apt-get install chromium)")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("screen", SCREENS)
def test_it_looks_right_in_a_browser(screen: str, scheme: str, opened: Browser, tmp_path: Path):
    write_report(tmp_path / "report", result(), shown())
    width, height, mobile = SCREENS[screen]
    opened.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened.ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    opened.open((tmp_path / "report" / PAGE).as_uri(), width, height, mobile=mobile)
    opened.wait_for("document.readyState === 'complete' && [...document.images].every(each => each.naturalWidth)")
    assert opened.value("document.documentElement.scrollWidth") <= width
    ink, back = opened.value(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        ".map(each => each.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0))"
    )
    assert (ink > back) == (scheme == "dark")
    seen = opened.value("[...document.querySelectorAll('svg.chart')].filter(each => each.clientWidth > 0).length")
    assert seen == 4
    small = opened.value(
        "Math.min(...[...document.querySelectorAll('svg.chart')].filter(each => each.clientWidth > 0)"
        ".map(each => each.clientWidth / each.viewBox.baseVal.width))"
    )
    assert small > 0.9  # the charts' letters keep their size
    x, y, wide, high = opened.value(
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('.compare input')"
        ".getBoundingClientRect())"
    )
    assert opened.value("document.querySelectorAll('.compare.slides .handle:not([hidden])').length") == 1
    opened.press(x + wide * 0.9, y + high / 2)
    assert _cut(opened) > 80
    opened.ask("Input.dispatchKeyEvent", type="keyDown", key="Home", code="Home", windowsVirtualKeyCode=36)
    assert _cut(opened) == 0
    assert opened.value("document.activeElement.tagName") == "INPUT"
    folder = Path(os.environ.get("EDGETURBO_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    opened.screenshot(folder / f"report_{screen}_{scheme}.png")
    assert opened.complaints == []


def test_without_javascript_there_are_two_pictures(opened: Browser, tmp_path: Path):
    write_report(tmp_path / "report", result(), shown())
    opened.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.open((tmp_path / "report" / PAGE).as_uri(), 390, 844, mobile=True)
        opened.wait_for("document.readyState === 'complete' && document.querySelectorAll('.compare img').length === 2")
        boxes = opened.value(
            "[...document.querySelectorAll('.compare img')].map(each => each.getBoundingClientRect().toJSON())"
        )
        hidden = opened.value("document.querySelector('.compare input').clientHeight")
    finally:
        opened.ask("Emulation.setScriptExecutionDisabled", value=False)
    first, second = boxes
    assert first["right"] <= second["left"]
    assert min(first["width"], second["width"]) > 150
    assert hidden == 0


def test_wide_tables_scroll_in_their_own_frame_by_keyboard(opened: Browser, tmp_path: Path):
    write_report(tmp_path / "report", result(), shown())
    opened.open((tmp_path / "report" / PAGE).as_uri(), 390, 844, mobile=True)
    opened.wait_for("document.readyState === 'complete'")
    frames = "[...document.querySelectorAll('.wide-table')].filter(each => each.scrollWidth > each.clientWidth)"
    assert opened.value(f"{frames}.length") > 3
    assert opened.value(f"{frames}.every(each => each.tabIndex === 0 && each.getAttribute('aria-label'))")
    assert opened.value("[...document.images].every(each => each.alt.length > 5)")


def _cut(opened: Browser) -> int:
    return int(opened.value("parseInt(document.querySelector('.compare').style.getPropertyValue('--cut'))"))
