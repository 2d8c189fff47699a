"""A ROS 2 node around a bundle: ``image`` in, ``~/image`` and ``~/image/compressed`` out, ``/diagnostics`` beside.

ROS calls back on its own thread, which only puts the newest message into a slot; a thread of the node's takes it from
there, so that neither waits for the other and what the engine sees is as young as it can be.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from edgeturbo import Translator
from edgeturbo.engines.errors import BadFrameError, EdgeTurboError
from edgeturbo.engines.select import choose
from edgeturbo.runtime.channel import Empty, LatestSlot
from edgeturbo.runtime.frame import Emission, Frame
from edgeturbo.runtime.similar import SimilarFrames
from edgeturbo.runtime.stats import StreamStats
from PIL import Image as Picture
from PIL import UnidentifiedImageError
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

# The sensor-data profile (rmw_qos_profile_sensor_data), whose depth is 5: here only the newest counts.
NEWEST = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)

_LOOK = 0.1
_SILENT_SECONDS = 2.0
_PARAMETERS = {
    "bundle": "", "engine": "auto", "precision": "", "input": "raw", "skip_similar": -1.0, "jpeg_quality": 85,
}  # fmt: skip


class TurboNode(Node):
    """Runs until ROS shuts down or the engine fails; ``close`` ends its thread."""

    def __init__(self) -> None:
        super().__init__("edgeturbo")
        for name, default in _PARAMETERS.items():
            self.declare_parameter(name, default)
        bundle = self._parameter("bundle")
        choice = choose(bundle, self._parameter("engine"), self._parameter("precision") or None)
        self._translate = Translator(bundle, engine=choice, on_bad_frame="last")
        level = self._parameter("skip_similar")
        self._similar = SimilarFrames(level) if level >= 0 else None
        self._stats = StreamStats(connected=True)
        self._slot: LatestSlot[tuple[Image | CompressedImage, int]] = LatestSlot()
        self._last: np.ndarray | None = None
        self.error: EdgeTurboError | None = None
        self._raw = self.create_publisher(Image, "~/image", NEWEST)
        self._compressed = self.create_publisher(CompressedImage, "~/image/compressed", NEWEST)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        compressed = self._parameter("input") == "compressed"
        kind, topic = (CompressedImage, "image/compressed") if compressed else (Image, "image")
        self._subscription = self.create_subscription(kind, topic, self._put, NEWEST)
        self._timer = self.create_timer(1.0, self._diagnose)
        self._thread = threading.Thread(target=self._work, name="translate", daemon=True)
        self._thread.start()
        self.get_logger().info(self._translate.reason)

    def close(self) -> None:
        """End the thread and give the engine back."""
        self._stats.drop("stopped", self._slot.close())
        self._thread.join(2.0)

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _put(self, message: Image | CompressedImage) -> None:
        self._stats.add(captured=1)
        if self._slot.put((message, time.monotonic_ns())) is not None:
            self._stats.drop("newer frame")

    def _work(self) -> None:
        try:
            with self._translate:
                while (item := self._slot.get(_LOOK)) is not Empty.CLOSED:
                    if isinstance(item, tuple):
                        self._take(*item)
        except EdgeTurboError as error:
            self.error = error
            self._stats.drop("engine failed")
            self.get_logger().fatal(str(error))
            rclpy.try_shutdown()

    def _take(self, message: Image | CompressedImage, received_ns: int) -> None:
        try:
            image = pixels(message)
        except ValueError as error:
            self._stats.drop("not a picture")
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            return
        frame = Frame(image, self._stats.captured - 1, None, received_ns)
        started = time.monotonic()
        self._stats.time("age_in", started - received_ns / 1e9)
        alike = self._similar is not None and self._similar.like_last(image)
        if alike and self._last is not None:
            self._stats.add(reused=1)
        else:
            try:
                self._last = self._translate(image)
            except BadFrameError:  # and no good picture came before it, to be shown instead
                self._stats.drop("bad frame")
                return
            self._stats.time("translate", time.monotonic() - started)
            self._stats.add(translated=1)
        self._publish(Emission(self._last, frame), message.header)

    def _publish(self, emission: Emission, header: Header) -> None:
        started = time.monotonic()
        if self._raw.get_subscription_count():
            self._raw.publish(raw_message(emission.image, header))
        if self._compressed.get_subscription_count():
            self._compressed.publish(jpeg_message(emission.image, header, self._parameter("jpeg_quality")))
        self._stats.took(emission, time.monotonic() - started)

    def _diagnose(self) -> None:
        summary = self._stats.summary()
        last = self._stats.last_emission_ns
        silent = last is None or time.monotonic_ns() - last > _SILENT_SECONDS * 1e9
        level = DiagnosticStatus.WARN if silent else DiagnosticStatus.OK
        figures = {"fps": round(self._stats.rate(), 2), "engine": self._translate.choice.backend}
        figures |= {name: summary[name] for name in ("captured", "translated", "reused", "emitted")}
        figures["bad frames"] = sum(self._translate.guard.bad_frames.values())
        figures |= {f"dropped: {reason}": count for reason, count in summary["dropped"].items()}
        figures |= {f"{name} p95 ms": timing["p95"] for name, timing in summary["ms"].items()}
        values = [KeyValue(key=key, value=str(value)) for key, value in figures.items()]
        text = "no pictures" if silent else "translating"
        status = DiagnosticStatus(level=level, name=f"{self.get_name()}: stream", message=text, values=values)
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def pixels(message: Image | CompressedImage) -> np.ndarray:
    """uint8 RGB ``[H, W, 3]``, C-contiguous. Raises ValueError for what cannot be read."""
    if isinstance(message, CompressedImage):
        try:
            with Picture.open(io.BytesIO(bytes(message.data)), formats=("JPEG", "PNG")) as picture:
                return np.array(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"a compressed picture of the format {message.format} cannot be read: {error}") from error
    if message.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"the encoding is {message.encoding}, and must be rgb8 or bgr8")
    if message.step < message.width * 3 or len(message.data) < message.step * message.height:
        raise ValueError(f"a picture of {message.width}x{message.height} has only {len(message.data)} bytes")
    rows = np.frombuffer(message.data, np.uint8)[: message.step * message.height].reshape(message.height, message.step)
    image = rows[:, : message.width * 3].reshape(message.height, message.width, 3)
    return np.ascontiguousarray(image if message.encoding == "rgb8" else image[..., ::-1])


def raw_message(image: np.ndarray, header: Header) -> Image:
    """``image`` is uint8 RGB ``[H, W, 3]``."""
    height, width = image.shape[:2]
    message = Image(header=header, height=height, width=width, encoding="rgb8", is_bigendian=0, step=3 * width)
    message.data.frombytes(np.ascontiguousarray(image).data)  # the array.array that rclpy keeps: no list of numbers
    return message


def jpeg_message(image: np.ndarray, header: Header, quality: int) -> CompressedImage:
    """``image`` is uint8 RGB ``[H, W, 3]``."""
    stream = io.BytesIO()
    Picture.fromarray(image).save(stream, "JPEG", quality=quality)
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(stream.getvalue())
    return message


def main(spin: Callable[[Node], None] = rclpy.spin) -> int:
    """Exit code as turbo-run's: 0 after a shutdown, the error's when the engine failed."""
    rclpy.init()
    try:
        node = TurboNode()
    except EdgeTurboError as error:
        rclpy.logging.get_logger("edgeturbo").fatal(str(error))
        rclpy.try_shutdown()
        return error.exit_code
    try:
        spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.close()
        rclpy.try_shutdown()
    return node.error.exit_code if node.error else 0


if __name__ == "__main__":
    raise SystemExit(main())
