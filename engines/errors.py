"""Every error this package raises on purpose.

::

    EdgeTurboError
    ├── UsageError               2  an option or a path that cannot be meant
    │   └── OutputExistsError       refuses to overwrite without --force
    ├── InputError               3  a file that cannot be used
    │   ├── CheckpointError         not a checkpoint this package knows, or a damaged one
    │   │   ├── UnsafePickleError       a pickle that asks to run code
    │   │   └── KeyMismatchError        keys missing, unexpected or misshapen
    │   ├── BaseModelError          the base model's folder lacks or contradicts something
    │   ├── ImageError              a picture that cannot be decoded faithfully
    │   └── BundleError             a bundle that is damaged, foreign or newer than this version
    ├── MissingComponentError    4  a package, driver, GPU or download that is not there
    ├── GateError                5  the result is not what the reference computes
    │   ├── ParityError             too far from the PyTorch reference
    │   ├── RangeError              a tensor does not fit FP16
    │   └── BadFrameError           an engine's picture is of one colour: it broke in the network
    └── DeviceError              6  a disk, GPU or builder that failed
        ├── BuildError              the engine builder's child process failed
        ├── SourceError             a camera or stream failed or went away; it may come back
        ├── SinkError               a stream or display that takes pictures failed
        └── DiskFullError           nothing was half-written; the earlier output is intact

The number is the exit code of the command line. Anything else that escapes is a bug and exits with 1.
"""

from __future__ import annotations

from typing import ClassVar


class EdgeTurboError(Exception):
    """The root. ``what`` failed, what was ``expected`` and ``got``, and the ``hint``: what to type next."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, expected: str | None = None, got: str | None = None, hint: str | None = None
    ) -> None:
        self.what = what
        self.expected = expected
        self.got = got
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        labelled = (("expected", self.expected), ("got", self.got), ("try", self.hint))
        return "\n".join([self.what, *(f"  {label}: {text}" for label, text in labelled if text)])


class UsageError(EdgeTurboError):
    exit_code = 2


class OutputExistsError(UsageError):
    pass


class InputError(EdgeTurboError):
    exit_code = 3


class CheckpointError(InputError):
    pass


class UnsafePickleError(CheckpointError):
    pass


class KeyMismatchError(CheckpointError):
    pass


class BaseModelError(InputError):
    pass


class ImageError(InputError):
    pass


class BundleError(InputError):
    pass


class MissingComponentError(EdgeTurboError):
    exit_code = 4


class GateError(EdgeTurboError):
    exit_code = 5


class ParityError(GateError):
    pass


class RangeError(GateError):
    pass


class BadFrameError(GateError):
    pass


class DeviceError(EdgeTurboError):
    exit_code = 6


class BuildError(DeviceError):
    pass


class SourceError(DeviceError):
    """``reason``: a short fixed word for metrics, such as ``refused``, ``timeout``, ``end``, ``corrupt``, ``stall``."""

    def __init__(
        self,
        what: str,
        *,
        reason: str = "error",
        expected: str | None = None,
        got: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, expected=expected, got=got, hint=hint)
        self.reason = reason


class SinkError(DeviceError):
    pass


class DiskFullError(DeviceError):
    pass


def first_line(error: BaseException) -> str:
    """What a foreign error says, short enough to stand inside a message of ours."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
