"""Where the time of a call goes: wall seconds by stage of the work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_RUNNING: ContextVar[dict[str, float] | None] = ContextVar("seconds by stage", default=None)
_IN_A_STAGE: ContextVar[bool] = ContextVar("in a stage", default=False)
_WATCHER: ContextVar[Callable[[str], None] | None] = ContextVar("who is told of stages", default=None)


@contextmanager
def watched_stages(watcher: Callable[[str], None]) -> Iterator[None]:
    """Tell ``watcher``, inside the block, the name of every stage that a clock counts when it starts."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def stage_clock() -> Iterator[dict[str, float]]:
    """Wall seconds of every ``stage`` that runs inside, in order of their first start; filled until the block ends."""
    seconds: dict[str, float] = {}
    tokens = _RUNNING.set(seconds), _IN_A_STAGE.set(False)
    try:
        yield seconds
    finally:
        _RUNNING.reset(tokens[0])
        _IN_A_STAGE.reset(tokens[1])


@contextmanager
def stage(name: str) -> Iterator[None]:
    """One stage of the work; a stage inside another counts for the outer one. Without a clock nothing is noted."""
    seconds = _RUNNING.get()
    if seconds is None or _IN_A_STAGE.get():
        yield
        return
    seconds.setdefault(name, 0.0)
    if watcher := _WATCHER.get():
        watcher(name)
    token, start = _IN_A_STAGE.set(True), time.perf_counter()
    try:
        yield
    finally:
        _IN_A_STAGE.reset(token)
        seconds[name] += time.perf_counter() - start
