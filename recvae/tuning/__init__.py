"""Tuning: a search for good hyperparameters that can be stopped and continued, and a bundle of the best.

    search       what is searched: a model's space, its points
    study        the trials, and what to try next
    database     the study on disk
    loop         one point after another, the best kept
    result       what a search has found, as a run like any other
    interrupts   Ctrl-C held back while the database is written

Their public names are handed on here.
"""

from recvae.tuning.database import check_optuna
from recvae.tuning.loop import tune
from recvae.tuning.result import (
    ALL_DONE,
    EXHAUSTED,
    INTERRUPTED,
    OUT_OF_TIME,
    Tuning,
    TuningMonitor,
    check_deliverable,
    deliver,
    place_of,
)
from recvae.tuning.search import Search, setting_text, settings_of, settings_text
from recvae.tuning.study import COMPLETE, FAILED, PRUNED, Trial

__all__ = [
    "ALL_DONE",
    "COMPLETE",
    "EXHAUSTED",
    "FAILED",
    "INTERRUPTED",
    "OUT_OF_TIME",
    "PRUNED",
    "Search",
    "Trial",
    "Tuning",
    "TuningMonitor",
    "check_deliverable",
    "check_optuna",
    "deliver",
    "place_of",
    "setting_text",
    "settings_of",
    "settings_text",
    "tune",
]
