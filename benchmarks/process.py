"""One call in a process of its own, which is gone afterwards with all its threads and memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_a_process(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``call`` returns or raises, from a fresh process; what goes there and back must pickle.

    Raises BrokenProcessPool when that process is killed, as when memory runs out.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(call, *args, **kwargs).result()
