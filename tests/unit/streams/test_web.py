"""The web server, spoken to over a real socket."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from edgeturbo.engines.errors import SinkError, UsageError
from edgeturbo.runtime.frame import Emission, Frame
from edgeturbo.runtime.metrics import Metrics
from edgeturbo.runtime.sensors import Reading
from edgeturbo.runtime.sinks.web import WebSink
from edgeturbo.runtime.stats import StreamStats
from edgeturbo.runtime.web import Latest, WebAddress, WebServer
from PIL import Image

TOKEN = "a-long-word"  # noqa: S105 -- for the test alone


def emission(level: int) -> Emission:
    frame = Frame(np.full((48, 64, 3), 10, np.uint8), 0, 0, time.monotonic_ns())
    return Emission(np.full((48, 64, 3), level, np.uint8), frame)


@pytest.fixture
def stats() -> StreamStats:
    return StreamStats()


@pytest.fixture
def serve(stats):
    servers = []

    def start(**address) -> WebServer:
        server = WebServer(WebAddress(port=0, **address), Latest(), stats, about={"engine": "null"})
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


def get(server: WebServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    found = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return found


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(serve):
    status, headers, body = get(serve(), "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"before" in body
    assert b"http://" not in body
    assert b"https://" not in body
    assert "default-src 'self'" in headers["Content-Security-Policy"]


def test_the_snapshot_is_the_newest_picture(serve):
    server = serve()
    assert get(server, "/snapshot.jpg")[0] == 503
    for level in (50, 200):
        server.latest.publish(emission(level))
        status, headers, body = get(server, "/snapshot.jpg")
        assert (status, headers["Content-Type"]) == (200, "image/jpeg")
        seen = np.asarray(Image.open(io.BytesIO(body)))
        assert seen.shape == (48, 64, 3)
        assert abs(int(seen.mean()) - level) <= 2


@pytest.mark.parametrize(("path", "levels"), [("/stream.mjpg", (50, 200)), ("/before.mjpg", (10, 10))])
def test_pictures_flow_to_whoever_looks(serve, path, levels):
    server = serve()
    server.latest.publish(emission(50))
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        reader = client.makefile("rb")
        while reader.readline().strip():
            pass
        for level in levels:
            assert reader.readline().startswith(b"--edgeturbo-frame")
            headers = http.client.parse_headers(reader)
            picture = np.asarray(Image.open(io.BytesIO(reader.read(int(headers["Content-Length"])))))
            assert abs(int(picture.mean()) - level) <= 2
            reader.readline()
            server.latest.publish(emission(200))


def test_a_client_that_does_not_read_holds_nobody_up(serve):
    server = serve()
    stuck = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n")
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    started = time.monotonic()
    for _ in range(20):
        server.latest.publish(Emission(noise, emission(0).frame))
    assert time.monotonic() - started < 5
    assert get(server, "/stats.json")[0] == 200
    stuck.close()


def test_closing_ends_the_streams(serve):
    server = serve()
    ended = threading.Event()

    def look():
        get(server, "/stream.mjpg")
        ended.set()

    threading.Thread(target=look, daemon=True).start()
    time.sleep(0.3)
    server.close()
    assert ended.wait(10)


def test_health_says_alive_and_ready_only_when_frames_flow(serve, stats):
    server = serve()
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/readyz")[0] == 503
    stats.connected = True
    stats.took(emission(1), 0.001)
    assert get(server, "/readyz")[0] == 200
    stats.last_new_ns -= 60_000_000_000
    assert get(server, "/readyz")[0] == 503


def test_a_picture_that_stands_in_for_bad_ones_makes_nobody_ready(serve, stats):
    heard = []
    stats.listen(lambda name, _: heard.append(name))
    stats.connected = True
    stats.took(replace(emission(1), stands_in=True), 0.001)
    assert (stats.emitted, stats.rate(), heard) == (1, 0.0, []), "the watchdog hears of ages"
    assert get(serve(), "/readyz")[0] == 503


def test_the_figures_are_the_streams(serve, stats):
    stats.add(captured=3)
    stats.drop("newer frame", 2)
    stats.time("translate", 0.25)
    data = json.loads(get(serve(), "/stats.json")[2])
    assert (data["captured"], data["dropped"], data["about"]) == (3, {"newer frame": 2}, {"engine": "null"})
    assert data["ms"]["translate"]["p50"] == 250.0


# Who may look


def test_another_machine_needs_a_token():
    for host in ("0.0.0.0", "192.168.1.7", "camera.local", "::"):  # noqa: S104
        with pytest.raises(UsageError, match="other machines") as caught:
            WebAddress(host, 8080)
        assert "--token" in caught.value.hint
    for host in ("", "127.0.0.1", "localhost", "::1"):
        assert WebAddress(host).is_local


def test_without_the_token_there_is_nothing_but_a_sign_of_life(serve):
    server = serve(host="0.0.0.0", token=TOKEN)  # noqa: S104
    server.latest.publish(emission(1))
    for path in ("/", "/snapshot.jpg", "/stream.mjpg", "/stats.json", "/metrics", "/?token=wrong", "/?token="):
        assert get(server, path)[0] == 403, path
    assert get(server, "/healthz")[0] == 200
    assert get(server, f"/snapshot.jpg?token={TOKEN}")[0] == 200
    assert get(server, "/snapshot.jpg", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert get(server, "/snapshot.jpg", Authorization=f"Basic {TOKEN}")[0] == 403
    status, headers, _ = get(server, f"/?token={TOKEN}")
    assert status == 200
    assert "HttpOnly" in headers["Set-Cookie"]
    assert get(server, "/snapshot.jpg", Cookie=headers["Set-Cookie"].split(";")[0])[0] == 200
    assert get(server, "/snapshot.jpg", Cookie='edgeturbo="; bad')[0] == 403


def test_another_sites_page_cannot_reach_it_by_a_name_of_its_own(serve):
    assert get(serve(), "/stats.json", Host="evil.example:8080")[0] == 403


def test_the_token_is_in_no_log(serve, caplog):
    caplog.set_level("DEBUG")
    get(serve(host="0.0.0.0", token=TOKEN), f"/stats.json?token={TOKEN}")  # noqa: S104
    assert "/stats.json" in caplog.text
    assert TOKEN not in caplog.text


def test_a_port_that_is_taken_is_an_error_with_a_way_out(serve, stats):
    with pytest.raises(SinkError, match="cannot listen") as caught:
        WebServer(WebAddress(port=serve().port), Latest(), stats)
    assert caught.value.hint


def test_the_sink_hands_pictures_to_the_server(serve):
    server = serve()
    sink = WebSink(server.latest, server.url)
    sink.write(emission(77))
    assert get(server, "/snapshot.jpg")[0] == 200
    assert sink.description == f"http://127.0.0.1:{server.port}/"


# Metrics


class _Readable:
    def read(self) -> Reading:
        return Reading(temperature_c=51.5, power_w=7.25, throttled=False)


def test_metrics_are_the_counts_and_the_timings(stats):
    metrics = Metrics(stats, {"backend": "null", "model": "cyclegan-turbo"}, _Readable())
    stats.add(captured=5, reconnects=2)
    stats.drop("newer frame", 3)
    stats.fault("stall")
    stats.bad("constant")
    stats.took(emission(1), 0.004)
    stats.time("translate", 0.03)
    text = metrics.text().decode()
    for line in (
        'edgeturbo_frames_total{outcome="captured"} 5.0',
        'edgeturbo_frames_total{outcome="emitted"} 1.0',
        'edgeturbo_dropped_total{reason="newer frame"} 3.0',
        'edgeturbo_source_faults_total{reason="stall"} 1.0',
        'edgeturbo_bad_frames_total{reason="constant"} 1.0',
        "edgeturbo_reconnects_total 2.0",
        'edgeturbo_engine_info{backend="null",model="cyclegan-turbo"} 1.0',
        'edgeturbo_stage_seconds_bucket{le="0.033",stage="translate"} 1.0',
        'edgeturbo_stage_seconds_bucket{le="0.02",stage="translate"} 0.0',
        'edgeturbo_frame_age_seconds_count{at="sink"} 1.0',
        "edgeturbo_temperature_celsius 51.5",
        "edgeturbo_power_watts 7.25",
        "edgeturbo_throttled 0.0",
        "edgeturbo_source_connected 0.0",
    ):
        assert line in text.splitlines(), line
    assert "edgeturbo_gpu_memory_bytes" not in text, "what is not readable is not reported"


def test_metrics_are_served(stats):
    metrics = Metrics(stats, {"backend": "null"}, _Readable())
    server = WebServer(WebAddress(port=0), Latest(), stats, metrics.text)
    try:
        status, headers, body = get(server, "/metrics")
    finally:
        server.close()
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert body.startswith(b"# HELP")
