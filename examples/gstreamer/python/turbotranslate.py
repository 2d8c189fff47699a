"""``turbotranslate``: a GStreamer element that translates RGB video with an edgeturbo bundle.

    gst-launch-1.0 videotestsrc ! videoconvert ! turbotranslate engine=day2night ! videoconvert ! autovideosink

GStreamer finds it through GST_PLUGIN_PATH, which names the folder above this one: see ../README.md. Frames go out at
the size at which they came in, with their times. For a picture that broke in the engine the last good one stands in; an
engine that fails stops the pipeline with an error.
"""

from __future__ import annotations

import gi  # noqa: TID253 -- this file is loaded by GStreamer itself
import numpy as np

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
gi.require_version("GstVideo", "1.0")
from edgeturbo import Translator  # noqa: E402 -- gi wants its versions first
from edgeturbo.engines.errors import BadFrameError, EdgeTurboError  # noqa: E402
from edgeturbo.runtime.image import restore  # noqa: E402
from gi.repository import GObject, Gst, GstBase, GstVideo  # noqa: E402, TID253

Gst.init(None)

_CAPS = Gst.Caps.from_string("video/x-raw,format=RGB,width=[1,16384],height=[1,16384]")


class TurboTranslate(GstBase.BaseTransform):
    """Opens the bundle when the pipeline starts, and gives it back when it stops."""

    __gstmetadata__ = (
        "Image translation by edgeturbo",
        "Filter/Effect/Video",
        "Translates RGB video with a CycleGAN-Turbo or pix2pix-Turbo bundle",
        "edgeturbo",
    )
    __gsttemplates__ = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, _CAPS),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, _CAPS),
    )

    engine = GObject.Property(type=str, default="", nick="engine", blurb="a bundle's folder, or a plan in one")
    backend = GObject.Property(
        type=str, default="auto", nick="backend", blurb="auto, or what shall run it, as turbo-run's --engine"
    )

    def __init__(self) -> None:
        super().__init__()
        self._translate: Translator | None = None
        self._info: GstVideo.VideoInfo | None = None

    def do_start(self) -> bool:
        try:
            translate = Translator(self.engine, engine=self.backend, on_bad_frame="last")
            translate.open()
        except EdgeTurboError as error:
            self._fail(error)
            return False
        self._translate = translate
        return True

    def do_stop(self) -> bool:
        if self._translate is not None:
            self._translate.close()
            self._translate = None
        return True

    def do_set_caps(self, incaps: Gst.Caps, outcaps: Gst.Caps) -> bool:  # noqa: ARG002 -- both are the same
        self._info = GstVideo.VideoInfo.new_from_caps(incaps)
        return self._info is not None

    def do_transform(self, inbuf: Gst.Buffer, outbuf: Gst.Buffer) -> Gst.FlowReturn:
        try:
            with inbuf.map(Gst.MapFlags.READ) as given, outbuf.map(Gst.MapFlags.WRITE) as wanted:
                frame = np.ascontiguousarray(self._pixels(given.data))
                image = self._translate(frame)
                self._pixels(wanted.data)[:] = restore(image, frame.shape[1], frame.shape[0], "squash")
        except BadFrameError:  # and no good picture came before it, to be shown instead
            return Gst.FlowReturn.CUSTOM_SUCCESS  # which is GST_BASE_TRANSFORM_FLOW_DROPPED, that bindings lack
        except EdgeTurboError as error:
            self._fail(error)
            return Gst.FlowReturn.ERROR
        return Gst.FlowReturn.OK

    def _pixels(self, data: memoryview) -> np.ndarray:
        """The buffer as uint8 ``[H, W, 3]``: GStreamer fills each row up to a multiple of four bytes."""
        info = self._info
        rows = np.frombuffer(data, np.uint8)[: info.stride[0] * info.height].reshape(info.height, info.stride[0])
        return rows[:, : info.width * 3].reshape(info.height, info.width, 3)

    def _fail(self, error: EdgeTurboError) -> None:
        self.message_full(
            Gst.MessageType.ERROR, Gst.LibraryError.quark(), Gst.LibraryError.FAILED, str(error), None,
            __file__, "turbotranslate", 0,
        )  # fmt: skip


GObject.type_register(TurboTranslate)
# What GStreamer's loader of Python plugins looks for: name, rank, type.
__gstelementfactory__ = ("turbotranslate", Gst.Rank.NONE, TurboTranslate)
