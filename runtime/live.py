"""From what a user typed to a stream that runs: source, engine, sinks, page, metrics and systemd, put together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..engines.errors import SourceError, UsageError
from .allocator import keep_freed_frames
from .guard import OnBadFrame
from .image import frame_note
from .options import StreamOptions
from .persistent import PersistentSource
from .sinks import open_sink
from .sinks.web import WebSink
from .sources import open_source
from .stats import StreamStats
from .stream import LoopOptions, NoSignal, Stream
from .systemd import Notifier
from .uri import Kind, Uri, parse_input, parse_output
from .web import Latest, WebAddress, WebServer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .frame import FrameSink, FrameSource
    from .translator import Translator

_WARM_UPS = 3
# An engine that takes longer than this for a frame is warm after one.
_WARM_UP_SECONDS = 2.0
_LOOK, _SECONDS_TO_STOP = 0.1, 1.5


@dataclass(frozen=True)
class LiveRequest:
    """``service``: under systemd or its like: metrics are served, and a source that is not there yet is waited for.

    ``address``: of the page and the metrics; None takes port 8080 of this machine alone, if a page is wanted.
    ``similar`` and ``no_signal`` are as in ``LoopOptions``, and so is ``on_bad_frame``, whose None is ``last`` for a
    live source, which must neither end nor go black while nobody looks, and ``error`` for any other, where somebody
    waits for the result and can run it again. The translator's own ``on_bad_frame`` means nothing here.
    """

    source: Uri
    outputs: tuple[Uri, ...]
    options: StreamOptions
    service: bool = False
    address: WebAddress | None = None
    similar: float | None = None
    no_signal: NoSignal = "card"
    on_bad_frame: OnBadFrame | None = None

    @classmethod
    def of(cls, source: str, outputs: Sequence[str], options: StreamOptions, token: str | None = None) -> LiveRequest:
        """Raises UsageError for URIs that cannot be meant, or two pages."""
        parsed = tuple(parse_output(output) for output in outputs)
        pages = [uri for uri in parsed if uri.kind is Kind.HTTP]
        if len(pages) > 1:
            raise UsageError("one page is enough", got=", ".join(str(page) for page in pages))
        address = WebAddress(pages[0].host, pages[0].port or 8080, token) if pages else None
        return cls(parse_input(source), parsed, options, address=address)


class Live:
    """A stream of ``request`` through ``translator``. Make it, ``run`` it once; ``stats`` may be read all the while.

    ``is_live``: whether the source has no end of its own; of a URL that is known only once it is open.
    """

    def __init__(self, translator: Translator, request: LiveRequest) -> None:
        self.stats = StreamStats()
        self.url: str | None = None
        self.is_live = request.source.kind not in (Kind.PICTURES, Kind.VIDEO, Kind.RAW)
        self._translator = translator
        self._request = request
        self._notifier = Notifier()
        self._stream: Stream | None = None

    def run(
        self, tell: Callable[[str], None] = lambda _: None, look: Callable[[StreamStats], None] = lambda _: None
    ) -> StreamStats:
        """Until the source ends, a limit is reached or ``stop``. ``tell`` is given a line when something begins.

        ``look`` is called about ten times a second, from this thread, to show how it goes.

        Raises what the source, the engine or the sinks raise; KeyboardInterrupt passes after all was closed.
        """
        request = self._request
        with ExitStack() as stack:
            keep_freed_frames()
            # Warm first: a camera's first frames would be stale by the time that a cold engine has seen them.
            self._warm_up()
            source = self._source()
            source.open()
            stack.callback(source.close)
            self.is_live = source.live
            self.stats.also(source)
            tell(f"source: {_described(source)}")
            self._tell_of_frames(source, tell)
            latest = self._server(stack)
            sinks = [self._sink(uri, latest) for uri in request.outputs]
            if self.url:
                tell(f"page: {self.url}")
            self._notify()
            stack.callback(self._notifier.stopping)
            self._stream = Stream(
                source, self._translator.translate_unguarded, sinks, self._loop_options(source), self.stats,
                self._translator.interrupt,
            )  # fmt: skip
            self._notifier.ready(f"{request.source} through {self._translator.reason}")
            self._stream.run(lambda: look(self.stats))
        return self.stats

    @property
    def has_begun(self) -> bool:
        """Whether frames could flow: the engine, the source and the page were there."""
        return self._stream is not None

    def stop(self) -> None:
        """End soon; from any thread."""
        if self._stream is not None:
            self._stream.stop()

    def _tell_of_frames(self, source: FrameSource, tell: Callable[[str], None]) -> None:
        """A bundle for a camera's own frames is given RGB here, which the host converts: that is no secret."""
        layout = self._translator.bundle.manifest.frame_layout
        if layout is None or not self.stats.connected:
            return
        note = frame_note((source.info.width, source.info.height), layout)
        if note:
            tell(note)

    def _source(self) -> FrameSource:
        source = open_source(self._request.source, self._request.options)
        # A test picture never goes away, and one of so many frames must not begin again.
        if not source.live or self._request.source.kind is Kind.TEST:
            self.stats.connected = True
            return source
        return PersistentSource(source, self.stats, patient=self._request.service)

    def _sink(self, uri: Uri, latest: Latest | None) -> FrameSink:
        if uri.kind is Kind.HTTP and latest is not None and self.url is not None:
            return WebSink(latest, self.url)
        clip = self._request.source
        audio_from = clip.path if clip.kind is Kind.VIDEO and uri.kind is Kind.VIDEO else None
        return open_sink(uri, self._request.options, audio_from=audio_from)

    def _server(self, stack: ExitStack) -> Latest | None:
        request = self._request
        if request.address is None and not request.service:
            return None
        latest = Latest()
        model = self._translator.bundle.manifest.model
        about = {"engine": self._translator.choice.backend, "model": f"{model.family} {model.direction or ''}".strip()}
        about["size"] = f"{model.width}x{model.height} {model.precision}"
        metrics = None
        if request.service:
            from .metrics import Metrics

            metrics = Metrics(self.stats, about).text
        server = WebServer(request.address or WebAddress(), latest, self.stats, metrics, about)
        stack.callback(server.close)
        self.url = server.url
        return latest

    def _notify(self) -> None:
        if self._notifier.is_listened_to:
            self.stats.listen(lambda name, _: self._notifier.emitted() if name == "age_out" else None)

    def _loop_options(self, source: FrameSource) -> LoopOptions:
        request, options = self._request, self._request.options
        return LoopOptions(
            latest=source.live if options.buffer is None else options.buffer == "latest",
            batch=1 if source.live else self._translator.bundle.manifest.model.batch,
            max_frames=options.max_frames, duration=options.duration_s,
            similar=request.similar, no_signal=request.no_signal,
            on_bad_frame=request.on_bad_frame or ("last" if source.live else "error"),
            judge=self._translator.fault_of,
        )  # fmt: skip

    def _warm_up(self) -> None:
        """Load the engine and run it on frames that nobody sees: the first runs are the slowest.

        On another thread, so that Ctrl-C is heard meanwhile: Python delivers it between two steps of this one.
        """
        over = threading.Event()
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self._run_on_nothing()
            except BaseException as error:  # noqa: BLE001 -- raised again below
                failures.append(error)
            finally:
                over.set()

        threading.Thread(target=work, name="warm up", daemon=True).start()
        try:
            while not over.wait(_LOOK):
                pass
        except BaseException:
            self._translator.interrupt()
            over.wait(_SECONDS_TO_STOP)
            raise
        if failures:
            raise failures[0]

    def _run_on_nothing(self) -> None:
        model = self._translator.bundle.manifest.model
        frame: NDArray[np.uint8] = np.zeros((model.height, model.width, 3), np.uint8)
        started = time.monotonic()
        for _ in range(_WARM_UPS):
            self._translator(frame)
            if time.monotonic() - started > _WARM_UP_SECONDS:
                break


def for_service(request: LiveRequest, token: str | None) -> LiveRequest:
    """The request as ``--service`` means it."""
    return replace(request, service=True, address=request.address or WebAddress(token=token))


def _described(source: FrameSource) -> str:
    try:
        return f"{source.info.description}, {source.info.width}x{source.info.height}"
    except SourceError as error:
        return f"{error.what}; waiting for it"
