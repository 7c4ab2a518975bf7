"""Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn a first Ctrl-C into a request to stop; a second one aborts.

    Only where a handler can be set, and not where Ctrl-C is ignored already, nor for several
    processes, which would have to agree.
    """
    main = threading.current_thread() is threading.main_thread()
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not main or ignored or jax.process_count() > 1:
        yield lambda: False
        return
    requests: list[int] = []

    def handle(signum, frame):
        if requests:
            raise KeyboardInterrupt
        requests.append(signum)

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(requests)
    finally:
        signal.signal(signal.SIGINT, previous)
