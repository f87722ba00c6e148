"""Code of a user's own, named by an import path that the user typed, such as `my_module:serendipity`."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from recvae.errors import UsageError


def import_object(path: str, what: str) -> Any:
    """Import what is called `module:name`; modules in the current folder are found too.

    Parameters
    ----------
    path : str
        Module and name, separated by a colon, such as "my_module:serendipity".
    what : str
        What it is wanted for, in messages: "metric" or "model".

    Returns
    -------
    object
        Whatever the module has under that name.

    Raises
    ------
    UsageError
        If it is not written like that, the module cannot be imported, or has no such name.
    """
    module, _, name = path.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"got {what} '{path}', expected MODULE:NAME such as my_module:my_{what}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise _unusable(path, what, module, error) from error
        raise UsageError(
            f"got {what} '{path}', but there is no module {error.name}; expected {error.name}.py in {here}, or an "
            "installed module"
        ) from error
    except (Exception, SystemExit) as error:
        raise _unusable(path, what, module, error) from error
    if not hasattr(found, name):
        known = ", ".join(sorted(own for own in vars(found) if not own.startswith("_"))) or "nothing"
        raise UsageError(f"got {what} '{path}', but {module} has no '{name}'; it has: {known:.300}")
    return getattr(found, name)


def _unusable(path: str, what: str, module: str, error: BaseException) -> UsageError:
    return UsageError(
        f"got {what} '{path}', but importing {module} failed with {type(error).__name__}: {error}; "
        f'make `python -c "import {module}"` work first'
    )
