"""Ranking metrics on numpy: ranked items and targets in, one value per user out.

    metric     all metrics by name, your own among them; several measured together
    accuracy   recall, NDCG, precision, hit rate, average precision, reciprocal rank
    exposure   coverage and Gini index of all lists, with a bootstrap over users
    beyond     novelty, popularity, tail, diversity, calibration

With n targets of a user and hit(j) = 1 where the item at rank j (from 1) is a target:

    recall@k       hits in the first k / min(k, n)                              Liang et al. 2018, eq. 8
    recall_all@k   hits in the first k / n                                      RecBole, LightGCN
    ndcg@k         sum_j hit(j) / log2(j + 1), over its value for min(k, n) hits at the top
    precision@k    hits in the first k / k
    hit_rate@k     1 if there is any hit in the first k
    map@k          sum_j hit(j) * precision@j / min(k, n)
    mrr@k          1 / rank of the first hit, 0 without one
    coverage@k     share of all items that are in anyone's first k: one value for the whole, not per user
    gini@k         how unequally the lists show the items: one value for the whole

What `beyond` has needs more than lists and targets: a `Background`.

Ranking is always over all items. Users without a target have NaN and are left out of means. Lists with an item twice
are refused. A new metric is a function of `RankedLists` and an entry in `METRICS`; your own needs neither: `Metric`.

The public names are handed on here.
"""

from recvae.metrics.accuracy import (
    average_precision_at_k,
    hit_rate_at_k,
    ndcg_at_k,
    precision_at_k,
    recall_all_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)
from recvae.metrics.exposure import coverage_at_k, gini_at_k
from recvae.metrics.metric import METRICS, NAMES, Metric, MetricFunction, measure, parse_metrics
from recvae.ranked_lists import Background

__all__ = [
    "METRICS",
    "NAMES",
    "Background",
    "Metric",
    "MetricFunction",
    "average_precision_at_k",
    "coverage_at_k",
    "gini_at_k",
    "hit_rate_at_k",
    "measure",
    "ndcg_at_k",
    "parse_metrics",
    "precision_at_k",
    "recall_all_at_k",
    "recall_at_k",
    "reciprocal_rank_at_k",
]
