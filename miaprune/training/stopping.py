"""How a training learns that it is to stop."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""SIGTERM is what schedulers send at a time limit, at preemption and for a cancelled job; SIGINT is Ctrl-C."""


class Stopped(BaseException):
    """The job was told to stop; the message names the signal. No Exception: nobody is to take it for a failure."""


@contextlib.contextmanager
def on_stop(handle: Callable[[str], None]) -> Iterator[None]:
    """Until the block ends, call ``handle`` with the signal's name when the job is told to stop."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        for number, old in before.items():
            if old is not signal.SIG_IGN:  # as under nohup: somebody wants it ignored
                signal.signal(number, lambda number, _: handle(signal.Signals(number).name))
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def span(seconds: float) -> str:
    """A length of time as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
