"""How everything that takes long tells how far it is."""

from collections.abc import Callable

Progress = Callable[[float, float | None, str], None]
"""Called with how much is done, of how much (None where that is not known), and a remark; `ProgressBar` is one."""
