"""When has a process really ended its work? Its libraries' threads may go on spinning after a call has returned."""

from __future__ import annotations

import time
from collections.abc import Callable

# A look is long against a timer's tick; a spinning thread takes all of it, Python's own bookkeeping next to nothing.
_LOOK_S, _SHARE = 0.02, 0.2
LIMIT_S = 2.0


def wait_until_quiet(
    limit_s: float = LIMIT_S,
    *,
    used: Callable[[], float] = time.process_time,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Sleep until this process' threads together take less than a fifth of one processor for 20 ms.

    The thread pools of ONNX Runtime, OpenMP and oneTBB keep their threads spinning for a while after a run, in the hope
    of more work. Whoever runs then has fewer cores. False when they have not ended after ``limit_s`` seconds, as with
    ``OMP_WAIT_POLICY=ACTIVE``. ``used`` are the seconds of processor time taken so far.
    """
    for _ in range(max(1, round(limit_s / _LOOK_S))):
        before = used()
        sleep(_LOOK_S)
        if used() - before < _SHARE * _LOOK_S:
            return True
    return False
