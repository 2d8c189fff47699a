"""The page of ``http://:8080`` in a real browser, at a desk's width and at a phone's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Browser
from edgeturbo.runtime.frame import Emission, Frame
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.web import Latest, WebAddress, WebServer
from PIL import Image

BEFORE, AFTER = (200, 40, 40), (40, 60, 200)
SIZE = (1280, 720)
ABOUT = {"engine": "onnxruntime", "model": "cyclegan-turbo a2b", "size": "1280x720 fp32"}
SCREENS = {"desktop": (1280, 800, False), "phone": (390, 844, True)}


def picture(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), colour, np.uint8)


class Camera:
    """Publishes ten pictures a second, blue ones made of red ones."""

    def __init__(self) -> None:
        self.latest, self.stats = Latest(), StreamStats(connected=True)
        self.stats.drop("newer frame", 3)
        self.server = WebServer(WebAddress(port=0), self.latest, self.stats, about=ABOUT)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        before, after = picture(BEFORE), picture(AFTER)
        index = 0
        while not self._end.wait(0.1):
            self.stats.add(captured=1, translated=1)
            self.stats.time("translate", 0.0125)
            emission = Emission(after, Frame(before, index, None, time.monotonic_ns() - 20_000_000))
            self.latest.publish(emission)
            self.stats.took(emission, 0.001)
            index += 1

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def camera() -> Iterator[Camera]:
    running = Camera()
    yield running
    running.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    program = browser.installed()
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(browser.NAMES)} (apt-get install chromium)")
    with Browser(program, tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    """Where screenshots stay for people to look at: $EDGETURBO_ARTEFACTS, or the test's own folder."""
    folder = Path(os.environ.get("EDGETURBO_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shown(page: Browser, path: Path) -> np.ndarray:
    """The stage as the screen shows it, uint8 ``[H, W, 3]``."""
    page.screenshot(path)
    box = page.value("(({x, y, width, height}) => [x, y, width, height])(stage.getBoundingClientRect())")
    left, top, width, height = (round(value) for value in box)
    with Image.open(path) as screen:
        return np.asarray(screen.convert("RGB"))[top : top + height, left : left + width]


def colour_at(stage: np.ndarray, part: float) -> np.ndarray:
    """The mean colour around a place ``part`` of the stage's width from its left, halfway down."""
    x, y = int(stage.shape[1] * part), stage.shape[0] // 2
    return stage[y - 5 : y + 5, x - 3 : x + 3].reshape(-1, 3).mean(axis=0)


def load(page: Browser, url: str, screen: str) -> None:
    width, height, mobile = SCREENS[screen]
    page.open(url, width, height, mobile=mobile)
    page.wait_for("document.querySelectorAll('#figures dd').length > 0 && before.naturalWidth && after.naturalWidth")
    page.wait_for("parseInt(document.querySelectorAll('#figures dd')[3].textContent) > 3")


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_shows_before_and_after_and_what_goes_on(screen, page, camera, artefacts):
    load(page, camera.server.url, screen)
    stage = shown(page, artefacts / f"page_{screen}.png")
    # JPEG and the screen's own colours move a level or two.
    np.testing.assert_allclose(colour_at(stage, 0.25), BEFORE, atol=6)
    np.testing.assert_allclose(colour_at(stage, 0.75), AFTER, atol=6)
    assert stage.shape[1] / stage.shape[0] == pytest.approx(SIZE[0] / SIZE[1], abs=0.02)
    names = page.value("[...document.querySelectorAll('#figures dt')].map(each => each.textContent)")
    figures = dict(
        zip(
            names,
            page.value("[...document.querySelectorAll('#figures dd')].map(each => each.textContent)"),
            strict=True,
        )
    )
    assert figures["dropped"] == "3"
    assert figures["translate, p50 / p95"] == "12.5 / 12.5 ms"
    assert 0 < float(figures["frames a second"]) <= 11
    assert page.value("state.textContent") == "live"
    assert all(word in page.value("about.textContent") for word in ABOUT.values())
    assert "newer frame 3" in page.value("lost.textContent")
    assert page.complaints == []


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_is_wider_than_the_screen(screen, page, camera):
    load(page, camera.server.url, screen)
    assert page.value("innerWidth") == SCREENS[screen][0]
    assert page.value("document.documentElement.scrollWidth") <= SCREENS[screen][0]
    assert (
        page.value("Math.max(...[...document.querySelectorAll('dd')].map(each => each.scrollWidth - each.clientWidth))")
        == 0
    )


@pytest.mark.parametrize("screen", SCREENS)
def test_the_slider_moves_the_border_and_so_does_the_picture(screen, page, camera, tmp_path):
    load(page, camera.server.url, screen)
    x, y, width, height = page.value("(({x, y, width, height}) => [x, y, width, height])(cut.getBoundingClientRect())")
    page.press(x + width * 0.9, y + height / 2)
    stage = shown(page, tmp_path / "slider.png")
    np.testing.assert_allclose(colour_at(stage, 0.75), BEFORE, atol=6)
    np.testing.assert_allclose(colour_at(stage, 0.97), AFTER, atol=6)
    x, y, width, height = page.value(
        "(({x, y, width, height}) => [x, y, width, height])(stage.getBoundingClientRect())"
    )
    page.press(x + width * 0.1, y + height / 2)
    stage = shown(page, tmp_path / "picture.png")
    np.testing.assert_allclose(colour_at(stage, 0.25), AFTER, atol=6)
    np.testing.assert_allclose(colour_at(stage, 0.04), BEFORE, atol=6)
    assert page.complaints == []


def test_the_page_says_so_when_the_camera_or_the_program_is_gone(page, camera):
    load(page, camera.server.url, "desktop")
    camera.stats.connected = False
    page.wait_for("state.textContent === 'NO SIGNAL' && state.className === 'away'")
    camera.close()
    page.wait_for("state.textContent === 'the program is gone'")
