"""Ctrl-C where it does no harm: a database that is interrupted in the middle of a transaction stays locked."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Shield:
    """Holds back Ctrl-C and SIGTERM within its block, except where it is opened.

    What was held back is passed on where the shield is opened next, or at the end of the block. Where another thread
    than the main one enters it, there is nothing to hold back.

    Examples
    --------
    >>> with Shield() as shield:
    ...     signal.raise_signal(signal.SIGINT)  # nothing yet
    ...     try:
    ...         with shield.opened():
    ...             print("never printed")
    ...     except KeyboardInterrupt:
    ...         print("now")
    now
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._held_back: list[int] = []
        self._is_open = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                handler = signal.getsignal(number)
                if callable(handler):  # the system's own way needs no help, and ends the process like a kill
                    self._handlers[number] = handler
                    signal.signal(number, self._hold_back)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if error is None:
            self._pass_on()

    def _hold_back(self, number: int, frame: FrameType | None) -> None:
        if self._is_open:
            self._handlers[number](number, frame)
        else:
            self._held_back.append(number)

    def _pass_on(self) -> None:
        held_back, self._held_back = self._held_back, []
        for number in held_back[:1]:
            self._handlers[number](number, None)

    def close(self) -> None:
        """Hold back again, whatever was going on."""
        self._is_open = False

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Let signals through, what was held back first."""
        self._is_open = True
        try:
            self._pass_on()
            yield
        finally:
            self.close()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Hold signals back for a moment where they were let through, and pass them on afterwards."""
        self.close()
        yield
        self._is_open = True
        self._pass_on()
