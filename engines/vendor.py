"""NVIDIA's two libraries that build and run plans, ``tensorrt`` and ``tensorrt_rtx``: loading them, and what they say.

Both have one Python interface in two packages. Either writes to Python's ``logging`` here, under the name of the
module of this package that is about it, and prints nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import MissingComponentError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_KEPT_ERRORS = 5


@dataclass(frozen=True)
class Vendor:
    """One of the libraries: its ``module``, its ``name`` in prose, and the ``hint`` that says how to get it."""

    module: str
    name: str
    hint: str

    def load(self) -> Any:
        """The module. Raises MissingComponentError when it cannot be imported.

        An OSError counts: the package is there but its shared libraries are not.
        """
        try:
            return import_module(self.module)
        except (ImportError, OSError) as error:
            raise MissingComponentError(
                f"the {self.module} package cannot be imported: {error}", hint=self.hint
            ) from error

    def version(self) -> str:
        """As the library says it, for example ``"10.3.0"`` or ``"1.7.1.116"``."""
        return str(self.load().__version__)

    def logger(self) -> Any:
        """The one logger of this library in this process: it keeps the first it is given, so there is never another."""
        return _logger(self)

    def last_errors(self) -> str:
        """What the library complained of last, a line for each of at most five messages; and forget it."""
        errors = self.logger().errors
        text = "\n".join(errors) or f"no message of {self.name}"
        errors.clear()
        return text

    def as_details(self) -> AbstractContextManager[None]:
        """Log at DEBUG whatever the library says meanwhile: for calls whose complaints are no errors of ours."""
        return _details_only(self.logger())


TENSORRT_RTX = Vendor("tensorrt_rtx", "TensorRT for RTX", 'pip install "edgeturbo[rtx]"')
TENSORRT = Vendor(
    "tensorrt",
    "TensorRT",
    'pip install "edgeturbo[tensorrt]" (on a Jetson: apt install python3-libnvinfer, a virtual environment made with '
    '--system-site-packages, and on JetPack 6 "cuda-python<13"; see docs/jetson.md)',
)


@cache
def _logger(vendor: Vendor) -> Any:
    trt = vendor.load()
    log = logging.getLogger(f"{__package__}.{vendor.module}")
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.CRITICAL,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.INFO,
    }

    class PythonLogger(trt.ILogger):  # type: ignore[name-defined,misc] # the vendor's packages have no types
        def __init__(self) -> None:
            super().__init__()
            self.details_only = False
            self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)

        def log(self, severity: Any, message: str) -> None:
            level = logging.DEBUG if self.details_only else levels.get(severity, logging.DEBUG)
            if level >= logging.ERROR:
                self.errors.append(message)
            log.log(level, "%s", message)

    return PythonLogger()


@contextmanager
def _details_only(logger: Any) -> Iterator[None]:
    logger.details_only = True
    try:
        yield
    finally:
        logger.details_only = False
