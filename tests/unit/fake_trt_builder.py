"""A stand-in for the ``tensorrt`` package's builder, in the shapes of 8.6.1, 10.3.0, 10.16.1 and 11.1.0.

TensorRT makes no builder without a GPU. What each version has and lacks here was read off the sources of its Python
bindings (NVIDIA/TensorRT, python/src/infer/pyCore.cpp, pyGraph.cpp and python/src/parsers/pyOnnx.cpp, at the tags), so
that a call which a version does not know fails here too. It builds nothing: it writes down what it was told. So it
shows that each version is spoken to in its own words, and not that any of them makes a plan that works.

``install`` puts it into a folder as the module ``tensorrt``, for a Python process that starts with it on its path.
"""

from __future__ import annotations

import enum
import json
import os
from pathlib import Path

VERSION = "FAKE_TRT_VERSION"
RECORD = "FAKE_TRT_RECORD"
LAYERS = "FAKE_TRT_LAYERS"
REFUSE = "FAKE_TRT_REFUSE"  # "parse", "build", "deserialize" or "builder": what shall fail
VERSIONS = ("8.6.1", "10.3.0", "10.16.1", "11.1.0")


def install(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tensorrt.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")


__version__ = os.environ.get(VERSION, VERSIONS[-1])
_MAJOR, _MINOR = (int(part) for part in __version__.split(".")[:2])
_WEAK = _MAJOR < 10
_refused = os.environ.get(REFUSE)
_told: dict = {"version": __version__}


def _enum(name, members):
    return enum.IntEnum(name, {member: index for index, member in enumerate(members.split())})


DataType = _enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8")
LayerType = _enum(
    "LayerType", "CONVOLUTION CAST ELEMENTWISE CONSTANT" + (" ATTENTION_INPUT" if (_MAJOR, _MINOR) >= (10, 14) else "")
)
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE DLA_MANAGED_SRAM DLA_LOCAL_DRAM DLA_GLOBAL_DRAM TACTIC_DRAM")
NetworkDefinitionCreationFlag = _enum(
    "NetworkDefinitionCreationFlag",
    {8: "EXPLICIT_BATCH", 10: "EXPLICIT_BATCH STRONGLY_TYPED", 11: "STRONGLY_TYPED"}[_MAJOR],
)
BuilderFlag = _enum(
    "BuilderFlag", "TF32" if _MAJOR > 10 else "TF32 FP16 OBEY_PRECISION_CONSTRAINTS PREFER_PRECISION_CONSTRAINTS"
)


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def __init__(self):
        pass


if not _WEAK:

    class IProgressMonitor:
        def __init__(self):
            pass


class _Tensor:
    def __init__(self, dtype):
        self.dtype = dtype


class _AnyLayer:
    __slots__ = ("_outputs", "metadata", "name", "type")

    def __init__(self, name, metadata, kind, outputs):
        self.name, self.metadata = name, metadata
        self.type = LayerType[kind]
        self._outputs = [_Tensor(DataType[dtype]) for dtype in outputs]

    num_outputs = property(lambda self: len(self._outputs))

    def get_output(self, index):
        return self._outputs[index]


class _WeakLayer(_AnyLayer):
    """``precision`` and output types are gone in 11."""

    __slots__ = ("_told", "precision")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.precision, self._told = DataType.FLOAT if self.type == LayerType.CONSTANT else None, {}

    def set_output_type(self, index, dtype):
        self._told[index] = dtype


_Layer = _AnyLayer if _MAJOR > 10 else _WeakLayer


if (_MAJOR, _MINOR) >= (10, 14):

    class _Attention:
        def __setattr__(self, name, value):
            _told[name] = value

    class IAttentionInputLayer(_Layer):
        """What a layer of that type is once it is told so: pybind11 hands out the base class."""

        __slots__ = ()
        attention = property(lambda _: _Attention())


class _Network:
    def __init__(self):
        self.layers = [_Layer(*layer) for layer in json.loads(os.environ.get(LAYERS, "[]"))]

    num_layers = property(lambda self: len(self.layers))

    def get_layer(self, index):
        return self.layers[index]


class _ParserError:
    """8.6 knows no names."""

    def node(self):
        return 7

    def desc(self):
        return "No importer registered for op: Gelu"

    if not _WEAK:

        def node_name(self):
            return "unet/Gelu_7"

        def node_operator(self):
            return "Gelu"


def init_libnvinfer_plugins(_logger, namespace):
    assert namespace == ""
    _told["plugins"] = True


class OnnxParser:
    def __init__(self, _network, _logger):
        self.num_errors = 0

    def parse_from_file(self, model):
        assert isinstance(model, str)
        assert Path(model).is_file()
        self.num_errors = int(_refused == "parse")
        return _refused != "parse"

    def get_error(self, _index):
        return _ParserError()


class _TimingCache:
    """The device it is of, and its entries: ``orin:a,b``."""

    def __init__(self, blob):
        device, _, entries = blob.decode().partition(":")
        self.device, self.entries = device or "orin", {entry for entry in entries.split(",") if entry}

    def combine(self, input_cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.entries |= input_cache.entries
        return True

    def serialize(self):
        return memoryview(f"{self.device}:{','.join(sorted(self.entries))}".encode())


class _Config:
    __slots__ = ("_cache", "builder_optimization_level", *(() if _WEAK else ("progress_monitor",)))

    def __init__(self):
        self._cache = None
        if not _WEAK:
            self.progress_monitor = None
        self.builder_optimization_level = 3
        _told.update(pools={}, set=[], cleared=[])

    def set_memory_pool_limit(self, pool, size):
        _told["pools"][MemoryPoolType(pool).name] = size

    def set_flag(self, flag):
        _told["set"].append(BuilderFlag(flag).name)

    def clear_flag(self, flag):
        _told["cleared"].append(BuilderFlag(flag).name)

    def create_timing_cache(self, serialized_timing_cache):
        return _TimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self._cache = cache
        return cache.device == "orin"

    def get_timing_cache(self):
        return self._cache


class Builder:
    def __init__(self, logger):
        if _refused == "builder":
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags=0):
        _told["network"] = [flag.name for flag in NetworkDefinitionCreationFlag if flags >> flag & 1]
        return _Network()

    def create_builder_config(self):
        return _Config()

    def build_serialized_network(self, network, config):
        monitor = None if _WEAK else config.progress_monitor
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            assert monitor.step_complete("Building Engine", 0)
            monitor.phase_finish("Building Engine")
        if config._cache is not None:
            config._cache.entries.add("timed now")
        _told["level"] = config.builder_optimization_level
        if _MAJOR < 11:
            _told["pinned"] = {
                layer.name: [
                    None if layer.precision is None else layer.precision.name,
                    [kind.name for kind in layer._told.values()],
                ]
                for layer in network.layers
                if layer._told or layer.precision is not None
            }
        Path(os.environ[RECORD]).write_text(json.dumps(_told))
        if _refused == "build":
            self._logger.log(ILogger.Severity.ERROR, "Could not find any implementation for node unet/Conv_1")
            return None
        return memoryview(b"a plan of the stand-in")


class Runtime:
    def __init__(self, _logger):
        pass

    def deserialize_cuda_engine(self, serialized_engine):
        assert bytes(serialized_engine).startswith(b"a plan")
        return None if _refused == "deserialize" else object()
