"""Importing what a user names as `MODULE:NAME`: a model or a metric of their own, never by itself."""

import sys
from importlib import import_module
from pathlib import Path

from recvae.errors import UsageError


def import_named(text: str, what: str) -> object:
    """Import an object that a user has named.

    Parameters
    ----------
    text : str
        `MODULE:NAME`; modules of the current folder are found too.
    what : str
        What it should be, e.g. "a model", for messages.

    Returns
    -------
    object
        Whatever has that name; the caller checks it.

    Raises
    ------
    UsageError
        If the text has another form, the module cannot be imported, or has nothing of that name.
    """
    module_name, _, name = text.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"got '{text}' for {what}, expected MODULE:NAME such as my_module:MyName")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as for `python -m`; an installed command does not have it
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever the module does while it is imported
        raise UsageError(
            f"got '{text}' for {what}, but importing {module_name} failed ({type(error).__name__}: {error}); "
            "run the command where the module is, or install it"
        ) from error
    if not hasattr(module, name):
        public = ", ".join(sorted(known for known in vars(module) if not known.startswith("_"))) or "nothing"
        raise UsageError(f"got '{text}' for {what}, but {module_name} has no {name}; it has: {public}")
    return getattr(module, name)
