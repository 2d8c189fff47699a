"""Strict JSON for frozen dataclasses: an unknown, missing or mistyped key is an error that names its place.

The dataclass is the schema; reading and writing go through it and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class SchemaError(ValueError):
    """``where`` in the document (``parity.frames``) and what is wrong there."""


def encode(value: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready dictionaries and lists, in field order."""
    return {name: _plain(item) for name, item in asdict(value).items()}


def decode(kind: type[T], data: object, where: str = "") -> T:
    """Build dataclass ``kind`` from what ``json.loads`` returned. Raises SchemaError."""
    if not isinstance(data, dict):
        raise SchemaError(f"{where or 'the document'} is not an object")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(known))
    required = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    missing = sorted(required - set(data))
    if unknown or missing:
        raise SchemaError(f"{where or 'the document'}: unknown keys {unknown}, missing keys {missing}")
    values = {name: _value(hints[name], item, f"{where}.{name}".lstrip(".")) for name, item in data.items()}
    return kind(**values)


def _plain(item: Any) -> Any:
    if isinstance(item, tuple | list):
        return [_plain(element) for element in item]
    if isinstance(item, Mapping):
        return {key: _plain(element) for key, element in item.items()}
    return item


def _value(hint: Any, item: object, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        if item is None and NoneType in arguments:
            return None
        return _value(next(a for a in arguments if a is not NoneType), item, where)
    if is_dataclass(hint):
        return decode(hint, item, where)  # type: ignore[arg-type]
    if origin is tuple and isinstance(item, list):
        return tuple(_value(arguments[0], element, f"{where}[{i}]") for i, element in enumerate(item))
    if origin is dict and isinstance(item, dict):
        return {key: _value(arguments[1], element, f"{where}.{key}") for key, element in item.items()}
    return _scalar(hint, item, where)


def _scalar(hint: Any, item: object, where: str) -> Any:
    if hint is float and type(item) in (int, float):
        return float(item)  # type: ignore[arg-type]
    if hint in (str, int, bool) and type(item) is hint:
        return item
    raise SchemaError(f"{where} is {item!r}, not {getattr(hint, '__name__', hint)}")
