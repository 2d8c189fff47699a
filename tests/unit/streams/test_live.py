"""A whole stream without a command line: what is put together, and how it ends before it began."""

from __future__ import annotations

import _thread
import threading
import time

import pytest
from edgeturbo.engines.errors import DeviceError, UsageError
from edgeturbo.runtime.live import Live, LiveRequest, for_service
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.translator import Translator

HANG = 10.0


def request_for(*outputs: str, **options) -> LiveRequest:
    return LiveRequest.of("test://ball?size=64x48&live=0&frames=5", outputs, StreamOptions(**options))


class Blocking(Translator):
    """Its engine computes until it is interrupted."""

    def __init__(self, path) -> None:
        super().__init__(path, engine="null")
        self.free = threading.Event()

    def __call__(self, frame):  # noqa: ARG002 -- as long as it takes
        self.free.wait()
        raise DeviceError("broken off")

    def interrupt(self) -> None:
        self.free.set()


def test_frames_flow_from_source_to_sink(make_bundle):
    told = []
    with Translator(make_bundle().root, engine="onnxruntime") as translator:
        stats = Live(translator, request_for("null://")).run(told.append)
    assert (stats.captured, stats.emitted, stats.dropped.total()) == (5, 5, 0)
    assert told == ["source: test://ball?size=64x48&live=0&frames=5, 64x48"]


def test_whether_it_is_live_is_the_sources_word_not_its_uris(make_bundle):
    """As an HTTP address, which may be a camera's or a file's: Ctrl-C ends the one, and breaks the other off."""
    with Translator(make_bundle().root, engine="null") as translator:
        live = Live(translator, request_for("null://"))
        assert live.is_live, "as far as its URI says"
        live.run()
        assert not live.is_live


def test_ctrl_c_is_heard_while_the_engine_warms_up(make_bundle):
    live = Live(Blocking(make_bundle().root), request_for("null://"))
    threading.Timer(0.3, _thread.interrupt_main).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        live.run()
    assert time.monotonic() - started < HANG


def test_an_engine_that_does_not_start_is_the_streams_error(make_bundle):
    translator = Blocking(make_bundle().root)
    translator.free.set()
    with pytest.raises(DeviceError, match="broken off"):
        Live(translator, request_for("null://")).run()


def test_two_pages_are_refused():
    with pytest.raises(UsageError, match="one page"):
        request_for("http://:8080", "http://:8081")


def test_a_service_has_a_page_of_its_own():
    assert for_service(request_for("null://"), None).address.is_local
    asked = request_for("http://:8123")
    assert for_service(asked, None).address.port == 8123
