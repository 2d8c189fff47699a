"""The process that one stage runs in: ``python -m edgeturbo.benchmarks.gpu_check.worker STAGE RECORD OPTIONS``."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from ...engines.errors import EdgeTurboError, MissingComponentError
from .context import Context
from .options import CheckOptions
from .record import DONE, FAILED, NOT_RUN, StageRecord, read_record, scrubbed, write_record
from .stages import stage_called


def main(name: str, path: Path, options: CheckOptions) -> None:
    """Run the stage and write into its record how it ended. Anything but our own errors is left to the supervisor.

    Raises InputError when there is no record to write into.
    """
    # So that `finally` and `with` end what the stage has started, a builder above all.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Compiled kernels outlive a stage that was ended, and serve the next try.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(options.work.resolve() / "inductor"))
    record = read_record(path)
    if record is None:
        raise SystemExit(f"{path} does not exist; run python -m {__package__}")
    context = Context(options, record, lambda changed: write_record(path, changed))
    try:
        stage_called(name).run(context)
    except MissingComponentError as error:
        write_record(path, _ended(context.record, NOT_RUN, error, options))
    except EdgeTurboError as error:
        write_record(path, _ended(context.record, FAILED, error, options))
    else:
        write_record(path, replace(context.record, state=DONE, reason=None))


def _ended(record: StageRecord, state: str, error: EdgeTurboError, options: CheckOptions) -> StageRecord:
    return replace(record, state=state, reason=scrubbed(" ".join(str(error).split()), options))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), CheckOptions.from_json(sys.argv[3]))
