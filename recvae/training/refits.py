"""Training again what a finished run has chosen, on its held-out users too: what is kept of that run.

Validation users have chosen the settings and the number of epochs. Once they are trained on, they can choose nothing
any more: the epochs of the run are trained, and schedules are those of the run, part of an epoch by part of an epoch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from recvae.datasets.parts import ON, SEEN


@dataclass(frozen=True, kw_only=True)
class Course:
    """For how long to train, where another run has chosen that.

    Parameters
    ----------
    epochs : int
        How many epochs to train, >= 1. The hyperparameter `epochs` stays what schedules are counted in.
    n_users : int
        Training users of that run: more users have more updates in an epoch, and schedules are stretched to these.
    """

    epochs: int
    n_users: int


@dataclass(frozen=True, kw_only=True)
class Refit:
    """What a run says of the one that it repeats on more users.

    Parameters
    ----------
    run : str
        Name of the run that has chosen settings and epochs.
    made : str
        When that run was made, as its card has it.
    on : str
        Trained on this: "train+validation" or "all".
    n_users : int
        Training users of that run.
    epochs : int or None
        Epochs it has chosen; None for a model without epochs.
    metrics : dict of str to float
        Its means over the validation users, who are not held out any more.
    select_by : str or None
        The metric by which it has chosen its epochs; None where it chose none, or does not say.
    """

    run: str
    made: str
    on: str
    n_users: int
    epochs: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    select_by: str | None = None

    @property
    def course(self) -> Course | None:
        """For how long to train; None for a model without epochs."""
        return None if self.epochs is None else Course(epochs=self.epochs, n_users=self.n_users)

    def has_seen(self, split: str) -> bool:
        """Whether the targets of "validation" or "test" were trained on."""
        return split in SEEN[self.on]

    def describe(self) -> str:
        """Say in one line what was chosen by what, and what was trained on."""
        epochs = "" if self.epochs is None else f" and epochs ({self.epochs})"
        metric = f" {self.select_by}" if self.select_by else ""
        chosen = f" on validation{metric}" if self.metrics else ""
        return f"settings{epochs} chosen by {self.run}{chosen}; trained on {self.on}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a card has it; a metric only where it has chosen."""
        return {name: value for name, value in asdict(self).items() if name != "select_by" or value is not None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned.

        Raises
        ------
        TypeError
            If it is of another shape, such as that of a newer version.
        """
        known = {name: values[name] for name in (item.name for item in fields(cls)) if name in values}
        found = cls(**known)
        kinds: dict[str, Any] = {"run": str, "made": str, "n_users": int, "epochs": int | None, "metrics": dict}
        kinds["select_by"] = str | None
        for name, kind in kinds.items():
            if not isinstance(value := getattr(found, name), kind) or isinstance(value, bool):
                raise TypeError(f"got {name} {value!r:.60} of a refit")
        if found.on not in ON:
            raise TypeError(f"got a refit on {found.on!r:.60}, expected one of {', '.join(ON)}")
        return found
