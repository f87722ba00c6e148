"""Which parts of a data set a finished run can be trained on again; importing this takes no time."""

from recvae.errors import UsageError

VALIDATION_TOO, ALL = "train+validation", "all"
ON = (VALIDATION_TOO, ALL)
"""What a finished run can be trained on again."""

SEEN = {VALIDATION_TOO: ("validation",), ALL: ("validation", "test")}
"""The held-out parts whose targets were trained on."""


def check_on(on: str) -> str:
    """Refuse an unknown choice of parts, else return it.

    Raises
    ------
    UsageError
        If it is not one of `ON`.
    """
    if on not in ON:
        raise UsageError(f"got --on '{on}', expected one of: {', '.join(ON)}")
    return on
