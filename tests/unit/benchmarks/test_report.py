"""The report: every row in it, nothing from elsewhere, and right in a real browser."""

from __future__ import annotations

import os
import re
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Browser
from edgeturbo.benchmarks.report import PAGE, TEXT, as_html, as_markdown, write_report
from edgeturbo.benchmarks.report.charts import Mark, pareto, standalone, waterfall
from edgeturbo.benchmarks.suite import Shown
from edgeturbo.engines.errors import OutputExistsError
from made_results import ROWS, result

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
        "(({x, y, width, height}) => [x, y, width, height])(document.querySelector('input[type=range]')"
        ".getBoundingClientRect())"
    )
    if y + high < height:
        opened.press(x + wide * 0.9, y + high / 2)
        assert int(opened.value("parseInt(document.querySelector('.stage').style.getPropertyValue('--cut'))")) > 80
    opened.screenshot(Path(os.environ.get("EDGETURBO_ARTEFACTS", tmp_path)) / f"report_{screen}_{scheme}.png")
    assert opened.complaints == []
