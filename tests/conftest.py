"""For every test: what a test process may use of the machine."""

from __future__ import annotations

import os


def pytest_configure() -> None:
    """Each of xdist's workers, and all that it starts, keeps to its own share of the cores.

    Torch, ONNX Runtime and OpenVINO start a thread for every core they may use, and these wait for one another by
    spinning: workers that share cores spend much of their time on that.
    """
    worker, count = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= count:
        os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) % count :: count])
