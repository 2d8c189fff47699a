from __future__ import annotations

import pytest
import torch
from terminal import Turbo, terminal

# Tiny tensors gain nothing from a second thread, and the suite runs in as many processes as there are cores.
torch.set_num_threads(1)


@pytest.fixture
def turbo(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Turbo:
    return terminal(monkeypatch, capfd)
