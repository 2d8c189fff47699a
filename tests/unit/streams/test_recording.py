"""Recordings that something happens to: a kill, a power cut, a full disk, a name that is taken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from clips import (
    INFO,
    emission,
    images_of,
    play,
    write_all,
)
from edgeturbo.engines.errors import (
    DiskFullError,
    OutputExistsError,
    UsageError,
)
from edgeturbo.runtime.sinks import open_sink

av = pytest.importorskip("av", reason="PyAV is not installed")


def test_a_recording_has_its_name_only_when_it_is_complete(tmp_path):
    sink = open_sink(str(tmp_path / "new" / "out.mp4"))
    sink.open(INFO)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.part.mp4"]
    sink.write(emission(0))
    sink.close()
    sink.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.mp4"]
    with pytest.raises(OutputExistsError):
        open_sink(str(tmp_path / "new" / "out.mp4")).open(INFO)


def test_what_an_earlier_power_cut_left_is_not_overwritten(tmp_path):
    (tmp_path / "out.part.mp4").write_text("earlier")
    play(open_sink(str(tmp_path / "out.mp4")), [emission(0)])
    assert (tmp_path / "out.part.mp4").read_text() == "earlier"
    assert len(images_of(tmp_path / "out.mp4")) == 1


def test_a_recording_whose_name_was_taken_meanwhile_is_kept(tmp_path):
    sink = open_sink(str(tmp_path / "out.mp4"))
    sink.open(INFO)
    sink.write(emission(0))
    (tmp_path / "out.mp4").write_text("another's")
    with pytest.raises(OutputExistsError) as caught:
        sink.close()
    assert "complete in" in str(caught.value)
    assert (tmp_path / "out.mp4").read_text() == "another's"
    assert len(images_of(tmp_path / "out.part.mp4")) == 1


def test_a_recording_without_a_picture_leaves_nothing(tmp_path):
    sink = open_sink(str(tmp_path / "out.mp4"))
    sink.open(INFO)
    sink.close()
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
import numpy as np
from edgeturbo.engines.errors import DiskFullError
from edgeturbo.runtime.frame import Emission, Frame, StreamInfo
from edgeturbo.runtime.options import StreamOptions
from edgeturbo.runtime.sinks import open_sink

{prepare}
random = np.random.default_rng(0)
sink = open_sink(sys.argv[1], StreamOptions(output_bitrate=2_000_000))
sink.open(StreamInfo(192, 128, 30.0, ""))
index = 0
try:
    while True:
        image = np.full((128, 192, 3), 100, np.uint8)
        image[:64] = random.integers(0, 256, (64, 192, 3), dtype=np.uint8)
        sink.write(Emission(image, Frame(image, index, index * 33_333_333, 0)))
        index += 1
        if index % 30 == 0:
            sys.stdout.write(f"{{index}}\\n")
            sys.stdout.flush()
except DiskFullError as error:
    sink.close()
    sys.stdout.write(f"full {{index}} {{error.exit_code}} {{error}}")
"""


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_recorder_that_is_killed_leaves_what_it_had(tmp_path, name):
    """SIGKILL gives the process no chance, as a power cut does not. At most the last seconds are lost."""
    command = [sys.executable, "-c", WRITER.format(prepare=""), str(tmp_path / name)]
    reports = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while not reports or reports[-1][0] - reports[0][0] < 3:
            count = int(child.stdout.readline())
            reports.append((time.monotonic(), count))
        child.send_signal(signal.SIGKILL)
    settled = max(count for when, count in reports if when < reports[-1][0] - 1.5)
    assert not (tmp_path / name).exists()
    assert settled > 0
    # What the encoder holds (its look-ahead and its threads) and the fragment that was not complete
    assert len(images_of(tmp_path / name.replace(".", ".part."))) >= settled - 90


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_matroska_cut_short_anywhere_is_played(tmp_path):
    items = [emission(i, noise(i), i * 33_333_333) for i in range(120)]
    play(open_sink(str(tmp_path / "out.mkv")), items)
    whole = (tmp_path / "out.mkv").read_bytes()
    for length in range(len(whole) // 3, len(whole), len(whole) // 23):
        (tmp_path / "cut.mkv").write_bytes(whole[:length])
        assert len(images_of(tmp_path / "cut.mkv")) >= 120 * length / len(whole) - 35


def test_mp4_cut_short_anywhere_while_it_grows_is_played(tmp_path, monkeypatch):
    """Whatever part of the unfinished fragment reached the disk: the finished ones are played."""
    monkeypatch.setattr("edgeturbo.runtime.sinks.recording._SYNC_EVERY_S", 0)
    sink = open_sink(str(tmp_path / "out.mp4"))
    sink.open(INFO)
    for index in range(200):
        sink.write(emission(index, noise(index), index * 33_333_333))
    found = (tmp_path / "out.part.mp4").read_bytes()
    sink.close()
    unfinished = found.index(b"free") - 4
    finished = found.count(b"moof")
    assert finished > 2
    lengths = [unfinished, *range(unfinished + 1, unfinished + 130, 5), (unfinished + len(found)) // 2, len(found)]
    counts = set()
    for length in lengths:
        (tmp_path / "cut.mp4").write_bytes(found[:length])
        counts.add(len(images_of(tmp_path / "cut.mp4")))
    assert len(counts) == 1
    assert counts.pop() >= 100


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_full_disk_ends_a_recording_that_can_be_played(tmp_path, name):
    prepare = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))"
    child = subprocess.run(
        [sys.executable, "-c", WRITER.format(prepare=prepare), str(tmp_path / name)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    *_, said = child.stdout.partition("full ")
    assert said, child.stderr
    written = int(said.split()[0])
    assert f"6 no space left to record to {tmp_path / name}" in said
    assert len(images_of(tmp_path / name)) >= written - 90
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="a file stands where a folder is needed"):
        open_sink(str(tmp_path / "file" / "out.mp4")).open(INFO)


def test_a_full_disk_is_told_once(tmp_path):
    """The error comes from write; close only closes."""
    sink = open_sink(str(tmp_path / "out.mp4"))
    sink.open(INFO)
    sink.write(emission(0))
    os.close(sink._file._descriptor)
    full = os.open("/dev/full", os.O_WRONLY)
    sink._file._descriptor = full
    with pytest.raises(DiskFullError):
        write_all(sink, [emission(index) for index in range(1, 200)])
    sink.close()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(full)
