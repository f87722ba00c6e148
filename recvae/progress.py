"""How everything that takes long reports its progress."""

from collections.abc import Callable

Progress = Callable[[float, float | None, str], None]
"""Called with how much is done, of how much (None where that is not known), and a note; `ProgressBar` is one."""
