"""``edgeturbo[bench]`` must not bring torchvision, whose wheel may replace or break the torch that is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import edgeturbo
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = (Path(edgeturbo.__file__).resolve().parent / "pyproject.toml").read_text(encoding="utf-8")
# 3.10 has no tomllib: names, and lists of double-quoted strings.
_SECTION = PYPROJECT.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
EXTRAS = {
    name: re.findall(r'"([^"]*)"', texts)
    for name, texts in re.findall(r'^(\w+) = \[((?:"[^"]*"|[^"\]])*)\]', _SECTION, re.MULTILINE)
}
FORBIDDEN = "torchvision"


def resolved(requirements: Iterable[str], path: list[str] | None = None) -> tuple[dict[str, str], set[str]]:
    """All that ``requirements`` bring, each with who wants it, by the installed metadata; and what is not installed."""
    brought: dict[str, str] = {}
    absent: set[str] = set()
    waiting = [(Requirement(text), "it is named", "") for text in requirements]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, wanted_by, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        brought.setdefault(name, wanted_by)
        distribution = _installed(name, path)
        if distribution is None:
            absent.add(name)
            continue
        for option in ("", *requirement.extras):
            if (name, option) not in seen:
                seen.add((name, option))
                waiting += [(Requirement(text), name, option) for text in distribution.requires or []]
    return brought, absent


def _installed(name: str, path: list[str] | None) -> metadata.Distribution | None:
    options = {} if path is None else {"path": path}
    return next(iter(metadata.distributions(name=name, **options)), None)


def test_bench_does_not_bring_torchvision():
    brought, absent = resolved(EXTRAS["bench"])
    assert FORBIDDEN not in brought, f"{brought.get(FORBIDDEN)} brings it"
    if absent:
        pytest.skip(f"what these bring is unknown, for they are not installed: {', '.join(sorted(absent))}")


def test_bench_brings_what_the_measures_import():
    named = {canonicalize_name(Requirement(text).name) for text in EXTRAS["bench"]}
    assert {"flip-evaluator", "opencv-python-headless"} <= named


def test_metrics_are_an_extra_of_their_own():
    named = {canonicalize_name(Requirement(text).name) for text in EXTRAS["metrics"]}
    assert {"torch", "torchvision", "lpips", "clean-fid", "timm"} <= named
    assert "torch" in {canonicalize_name(Requirement(text).name) for text in EXTRAS["export"]}
    for name in EXTRAS.keys() - {"metrics"}:
        assert not any("torchvision" in text or "edgeturbo[" in text for text in EXTRAS[name]), name


def test_what_is_brought_by_what_is_brought_counts(tmp_path):
    """The test above could pass by looking at nothing."""
    for name, wants in (("outer", "inner[odd]"), ("inner", "torchvision>=0.1 ; extra == 'odd'")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\nRequires-Dist: {wants}\n")
    brought, absent = resolved(["outer"], [str(tmp_path)])
    assert brought == {"outer": "it is named", "inner": "outer", "torchvision": "inner"}
    assert absent == {"torchvision"}
    assert "torchvision" not in resolved(["inner"], [str(tmp_path)])[0]
    assert resolved(["outer ; python_version < '3'"], [str(tmp_path)]) == ({}, set())


def test_what_is_installed_is_followed():
    brought, _ = resolved(["rich"])
    assert brought["mdurl"] == "markdown-it-py"
