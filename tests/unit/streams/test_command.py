"""``turbo-run`` on videos and cameras, as typed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from edgeturbo.runtime.systemd import Notifier
from PIL import Image
from terminal import Turbo, terminal

av = pytest.importorskip("av", reason="videos need PyAV")

HANG = 20.0
RUN = "import sys\nfrom edgeturbo.cli.run import main\nsys.argv[0] = 'turbo-run'\nmain()"
ORT = ("--engine", "onnxruntime")


@pytest.fixture
def turbo(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Turbo:
    return terminal(monkeypatch, capfd)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """30 frames of 64x48 at 25 a second, each of one grey, with a tone."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=44100)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for level in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 7 * level, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        tone = np.sin(np.arange(44100) * 2 * np.pi * 440 / 44100).astype(np.float32)[None]
        sound = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode())
    return path


def levels(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [int(frame.to_ndarray(format="rgb24").mean()) for frame in container.decode(video=0)]


def start(*words: object, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, words)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_a_clip_goes_through_frame_by_frame_with_its_sound(turbo, make_bundle, clip):
    ended = turbo("turbo-run", make_bundle().root, clip, *ORT)
    assert ended.code == 0, ended.err
    out = clip.with_name("clip.edgeturbo.mp4")
    assert "30 frames captured, 30 pictures" in ended.out
    got = levels(out)
    assert len(got) == 30
    assert all(abs(level - (255 - (20 + 7 * i))) <= 4 for i, level in enumerate(got)), got
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        counts = [sum(1 for packet in c.demux(audio=0) if packet.size) for c in (before, after)]
    assert counts[0] == counts[1] > 0


def test_an_output_that_is_there_stays(turbo, make_bundle, clip):
    bundle = make_bundle().root
    assert turbo("turbo-run", bundle, clip, *ORT).code == 0
    ended = turbo("turbo-run", bundle, clip, *ORT)
    assert (ended.code, "--force" in ended.err) == (2, True)
    assert turbo("turbo-run", bundle, clip, *ORT, "--force").code == 0


def test_several_outputs_at_once(turbo, make_bundle, clip, tmp_path):
    ended = turbo(
        "turbo-run", make_bundle().root, clip, tmp_path / "a.mkv", "--output", tmp_path / "p" / "%03d.png",
        *ORT, "--max-frames", "4", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["emitted"] == 4
    assert len(levels(tmp_path / "a.mkv")) == len(list((tmp_path / "p").iterdir())) == 4


def test_pictures_become_a_video_and_a_video_pictures(turbo, make_bundle, clip, tmp_path):
    bundle = make_bundle().root
    assert turbo("turbo-run", bundle, clip, str(tmp_path / "frames") + "/", *ORT).code == 0
    assert len(list((tmp_path / "frames").iterdir())) == 30
    ended = turbo("turbo-run", bundle, tmp_path / "frames", tmp_path / "back.mp4", *ORT)
    assert ended.code == 0, ended.err
    assert len(levels(tmp_path / "back.mp4")) == 30


def test_raw_frames_on_a_pipe(make_bundle, make_frame):
    frames = [make_frame(seed=seed) for seed in range(3)]
    done = subprocess.run(
        [sys.executable, "-c", RUN, make_bundle().root, "-", "-", *ORT, "--input-width", "64", "--input-height", "48",
         "--quiet"],
        input=b"".join(frame.tobytes() for frame in frames), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    got = np.frombuffer(done.stdout, np.uint8).reshape(3, 48, 64, 3)
    np.testing.assert_array_equal(got, 255 - np.stack(frames))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_camera_is_ended_by_the_user_and_its_recording_can_be_played(make_bundle, tmp_path, how):
    out = tmp_path / "out.mp4"
    process = start(make_bundle().root, "test://ball?size=64x48&rate=30", out, *ORT)
    until(lambda: list(tmp_path.glob("out*.mp4")) and next(tmp_path.glob("out*.mp4")).stat().st_size > 0)
    time.sleep(1.0)
    process.send_signal(how)
    started = time.monotonic()
    said, complained = process.communicate(timeout=HANG)
    assert time.monotonic() - started < 10, "five times the two seconds"
    assert process.returncode == 0, complained
    assert re.search(r"[1-9]\d* pictures to", said)
    assert len(levels(out)) > 5


def test_a_file_that_is_ended_early_says_that_it_was(make_bundle, tmp_path, clip):
    process = start(make_bundle().root, clip, tmp_path / "out.mp4", *ORT, "--input-loop", "-1")
    until(lambda: list(tmp_path.glob("out*.mp4")))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANG)
    assert process.returncode == 130


def until(happened, seconds: float = HANG) -> None:
    started = time.monotonic()
    while not happened():
        assert time.monotonic() - started < seconds, "it never came"
        time.sleep(0.05)


def test_wrong_use_is_told_at_once(turbo, make_bundle, tmp_path, clip):
    bundle = make_bundle().root
    for words, code, says in (
        ((clip, "ftp://x/y"), 2, "ftp"),
        (("test://ball", "http://0.0.0.0:0"), 2, "--token"),
        (("test://ball", "null://", "--input-flip", "sideways"), 2, "--input-flip"),
        (("nothing.mp4", tmp_path / "x.mp4"), 3, "nothing.mp4"),
        (("rtsp://user:s3cret@127.0.0.1:9/x", "null://"), 6, "127.0.0.1:9"),
        (("/dev/video97", "null://"), 6, "/dev/video97"),
    ):
        ended = turbo("turbo-run", bundle, *words, *ORT)
        assert (ended.code, says in ended.err, "Traceback" in ended.err) == (code, True, False), (words, ended.err)
        assert "s3cret" not in ended.err
        assert "captured" not in ended.out, "nothing had begun"


def test_as_a_service_it_tells_systemd_and_the_web(make_bundle, tmp_path):
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(HANG)
        process = start(
            make_bundle().root, "test://ball?size=64x48&rate=30", f"http://127.0.0.1:{port}", "--service", *ORT,
            NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000",
        )  # fmt: skip
        try:
            assert systemd.recv(4096).startswith(b"READY=1")
            assert systemd.recv(4096) == b"WATCHDOG=1"
            until(lambda: status(port, "/readyz") == 200)
            metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=HANG).read().decode()
            assert 'edgeturbo_engine_info{engine="onnxruntime"' in metrics
            assert float(re.search(r'frames_total\{outcome="emitted"\} (\S+)', metrics)[1]) > 0
            assert urllib.request.urlopen(f"http://127.0.0.1:{port}/snapshot.jpg", timeout=HANG).read(2) == b"\xff\xd8"
        finally:
            process.terminate()
            _, complained = process.communicate(timeout=HANG)
        assert process.returncode == 0, complained
        systemd.setblocking(False)
        said = b""
        while b"STOPPING=1" not in said:
            said = systemd.recv(4096)
    assert Notifier({}).is_listened_to is False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def status(port: int, path: str) -> int:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=HANG).status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_service_waits_for_a_camera_that_is_not_there_yet(make_bundle):
    page = f"http://127.0.0.1:{free_port()}"
    process = start(make_bundle().root, "rtsp://127.0.0.1:9/live", page, "--service", "--engine", "null")
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4.0)
    finally:
        process.terminate()
        _, complained = process.communicate(timeout=HANG)
    assert process.returncode == 0, complained
    assert "trying again" in complained or "waiting for it" in complained


def test_the_unit_file_is_the_command_with_full_paths(turbo, make_bundle, monkeypatch, tmp_path):
    bundle = make_bundle().root
    monkeypatch.chdir(bundle.parent)
    ended = turbo("turbo-run", bundle.name, "csi://0", "out/night.mp4", "--print-unit", "--max-frames", "5")
    assert ended.code == 0, ended.err
    assert f"{bundle} csi://0 {tmp_path}/out/night.mp4 --max-frames 5 --service" in ended.out
    assert f"ReadWritePaths={tmp_path}/out" in ended.out


def test_an_option_is_obeyed_for_pictures_too(turbo, make_bundle, make_frame, tmp_path):
    bundle = make_bundle().root
    for seed in range(3):
        Image.fromarray(make_frame(seed=seed)).save(tmp_path / f"{seed}.png")
    ended = turbo("turbo-run", bundle, tmp_path / "0.png", "--output", tmp_path / "out.png", *ORT)
    assert ended.code == 0, ended.err
    assert (tmp_path / "out.png").is_file()
    assert not (tmp_path / "0.edgeturbo.png").exists()
    ended = turbo("turbo-run", bundle, str(tmp_path / "?.png"), str(tmp_path / "some") + "/", *ORT, "--max-frames", "2")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "some").iterdir())) == 2
