"""docs/cameras.md says what the code does: its tables of URIs, options, metrics and pages are the code's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args, get_type_hints

import edgeturbo
import pytest
from edgeturbo.cli.run import run
from edgeturbo.runtime import stream, web
from edgeturbo.runtime.metrics import Metrics
from edgeturbo.runtime.options import FLIPS
from edgeturbo.runtime.persistent import Persistence
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.uri import INPUTS, OUTPUTS

DOC = Path(edgeturbo.__file__).parent / "docs" / "cameras.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOC.read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(part: str) -> list[tuple[str, str]]:
    """The cells of a part's two-column tables, of rows that begin with code."""
    return re.findall(r"^\| `(.+?)` \| (.+) \|$", part, re.MULTILINE)


@pytest.mark.parametrize(
    ("title", "forms"), [("Where frames come from", INPUTS), ("Where pictures go", OUTPUTS)], ids=["in", "out"]
)
def test_the_tables_of_uris_are_the_codes_own(text, title, forms):
    assert rows(section(text, title)) == list(forms)


def test_every_option_of_a_stream_is_explained(text):
    hints = get_type_hints(run, include_extras=True)
    streaming = [
        name for name in inspect.signature(run).parameters
        if any(getattr(extra, "rich_help_panel", None) for extra in get_args(hints[name])[1:])
    ]  # fmt: skip
    assert len(streaming) > 15
    options = section(text, "Options")
    assert [name for name in streaming if f"`--{name.replace('_', '-')}`" not in options] == []
    assert all(f"`{flip}`" in options for flip in FLIPS)
    words = set(re.findall(r"`--([a-z-]+)`", options))
    assert words <= {name.replace("_", "-") for name in inspect.signature(run).parameters}


def test_every_metric_is_listed_with_its_meaning(text):
    metrics = Metrics(StreamStats(), {"backend": "null"})
    shown = re.findall(r"^# HELP (edgeturbo_\w+) (.*)$", metrics.text().decode(), re.MULTILINE)
    known = {name: meaning for name, meaning in shown if not name.endswith("_created")}
    known |= {f"edgeturbo_{name}": meaning for name, meaning, _ in metrics._gauges()}
    listed = dict(row for row in rows(section(text, "As a service")) if row[0].startswith("edgeturbo_"))
    assert listed == known


def test_every_page_is_listed(text):
    listed = {path for name, _ in rows(section(text, "As a service")) for path in name.split("`, `") if path[0] == "/"}
    assert listed == {*web._PAGES, "/healthz"}


def test_every_reason_for_a_dropped_frame_is_named(text):
    code = "".join(Path(inspect.getfile(part)).read_text(encoding="utf-8") for part in (stream, stream.Outlet))
    reasons = set(re.findall(r'"(newer frame|stopped|engine failed|bad frame|slow sink|sink failed)"', code))
    drops = re.findall(r"drop\((?:\n\s*)?\"([a-z ]+)\"", code)
    assert len(reasons) == 6
    assert set(drops) <= reasons
    assert all(f"`{reason}`" in text for reason in reasons)


def test_the_waits_are_those_of_the_code(text):
    policy = Persistence()
    assert (policy.first_wait, policy.longest_wait, policy.jitter, policy.stall) == (0.1, 0.5, 0.2, 5.0)
    assert "tries again after 0.1 s, then after twice as long each time, to half a second, a fifth more or less" in text
    assert "restarted after 5 s without a frame" in text
