"""The two libraries of NVIDIA's, as far as no GPU is needed."""

from __future__ import annotations

import functools
import logging
import sys
from types import ModuleType

import pytest
from edgeturbo.engines import vendor
from edgeturbo.engines.errors import MissingComponentError
from edgeturbo.engines.vendor import TENSORRT, TENSORRT_RTX, Vendor
from fakes.cuda import FakeCuda
from fakes.tensorrt import Library, Severity


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = Library(FakeCuda(), "10.3").module
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(vendor, "_logger", functools.cache(vendor._logger.__wrapped__))
    return module


def test_loads_its_module(library: ModuleType) -> None:
    assert TENSORRT.load() is library
    assert TENSORRT.version() == "10.3.0"


@pytest.mark.parametrize("absent", [TENSORRT, TENSORRT_RTX])
def test_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch, absent: Vendor) -> None:
    monkeypatch.setitem(sys.modules, absent.module, None)
    with pytest.raises(MissingComponentError, match=f"the {absent.module} package cannot be imported") as raised:
        absent.load()
    assert raised.value.hint == absent.hint


def test_a_package_without_its_shared_libraries_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: str) -> None:
        raise FileNotFoundError("Could not find: libnvinfer.so.10")

    monkeypatch.setattr(vendor, "import_module", load)
    with pytest.raises(MissingComponentError, match="libnvinfer"):
        TENSORRT.version()


@pytest.mark.usefixtures("library")
def test_has_one_logger_that_speaks_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    logger = TENSORRT.logger()
    assert TENSORRT.logger() is logger
    with caplog.at_level(logging.DEBUG):
        for severity in Severity:
            logger.log(severity, severity.name)
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("edgeturbo.engines.tensorrt", level, message)
        for level, message in (
            ("CRITICAL", "INTERNAL_ERROR"),
            ("ERROR", "ERROR"),
            ("WARNING", "WARNING"),
            ("INFO", "INFO"),
            ("DEBUG", "VERBOSE"),
        )
    ]
    assert TENSORRT.last_errors() == "INTERNAL_ERROR\nERROR"
    assert TENSORRT.last_errors() == "no message of TensorRT", "they were told once"


@pytest.mark.usefixtures("library")
def test_keeps_the_last_errors_only() -> None:
    for number in range(9):
        TENSORRT.logger().log(Severity.ERROR, str(number))
    assert TENSORRT.last_errors() == "4\n5\n6\n7\n8"


@pytest.mark.usefixtures("library")
def test_details_are_logged_lower_and_are_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), TENSORRT.as_details():
        TENSORRT.logger().log(Severity.ERROR, "no driver")
    assert [(record.levelname, record.message) for record in caplog.records] == [("DEBUG", "no driver")]
    assert TENSORRT.last_errors() == "no message of TensorRT"
    TENSORRT.logger().log(Severity.ERROR, "another")
    assert TENSORRT.last_errors() == "another"
