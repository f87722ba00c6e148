"""A data set goes in as it is: to fit, to evaluate, to compare and to recommend; what does not belong is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from recvae import ALS, EASE, Blend, Dataset, MultDAE, Popularity, Recommender, compare, evaluate, read_bundle
from recvae.errors import DataError, NotFittedError, UsageError
from recvae.evaluation.fitting import fit as fit_bundle
from recvae.interactions import HeldOut
from recvae.models.common.base import Model
from recvae.training.refits import Refit

SMALL: dict[str, Any] = {"latent_dim": 4, "epochs": 3, "batch_size": 20}


def other_items(data: Dataset) -> Dataset:
    """Return the same matrices with other item ids, and no word of it in the manifest."""
    return replace(data, item_ids=data.item_ids + 1)


def made_anew(data: Dataset) -> Dataset:
    """Return what claims to be the data set after it was prepared again, differently."""
    return replace(data, manifest={**data.manifest, "fingerprint": "1" * 64})


def test_a_data_set_trains_on_its_training_rows_and_validates_on_its_validation_users(blocks: Dataset) -> None:
    whole = MultDAE(**SMALL).fit(blocks, device="cpu")
    apart = MultDAE(**SMALL).fit(blocks.train, blocks.validation, device="cpu")
    assert whole.history_.best_ndcg is not None
    assert [(r.loss, r.ndcg) for r in whole.log_] == [(r.loss, r.ndcg) for r in apart.log_]
    assert all(np.array_equal(array, apart.weights()[name]) for name, array in whole.weights().items())


def test_every_model_takes_a_data_set(model_name: str, make_model: Callable[..., Any], blocks: Dataset) -> None:
    model = make_model(model_name, **({"epochs": 1} if hasattr(make_model(model_name), "epochs") else {}))
    assert model.fit(blocks, device="cpu").n_items_ == len(blocks.item_ids)
    assert Recommender(model).manifest == blocks.manifest


def test_a_second_set_of_validation_users_is_refused(blocks: Dataset) -> None:
    with pytest.raises(UsageError, match=r"^got validation users with the data set blocks, which has its own; leave"):
        MultDAE(**SMALL).fit(blocks, blocks.test)


def test_what_is_neither_a_data_set_nor_a_matrix_is_refused(blocks: Dataset) -> None:
    model: Any = Popularity()
    with pytest.raises(UsageError, match=r"^got the path data/ml-1m to train on, .*: Dataset\.load\('data/ml-1m'\)$"):
        model.fit("data/ml-1m")
    with pytest.raises(UsageError, match=r"^got the path data/ml-1m to train on, expected a Dataset; load it: "):
        model.fit(Path("data/ml-1m"))
    with pytest.raises(UsageError, match=r"^got a DataFrame to train on, .*: Dataset\.from_pandas\(table\)$"):
        model.fit(pd.DataFrame({"user": [1, 2], "item": [3, 4]}))
    with pytest.raises(DataError, match=r"^got ndarray for the training interactions, expected a scipy sparse matrix"):
        model.fit(blocks.train.toarray())
    assert not model.n_items_


def test_a_model_keeps_what_recommending_by_ids_needs(blocks: Dataset, tmp_path: Path) -> None:
    model = EASE(l2=5.0).fit(blocks)
    history = blocks.item_ids[:3]
    expected = Recommender(EASE(l2=5.0).fit(blocks.train), blocks).recommend(history, k=5)
    assert Recommender(model).recommend(history, k=5) == expected
    Recommender(model).save(tmp_path / "bundle")
    assert Recommender.load(tmp_path / "bundle").recommend(history, k=5) == expected
    assert read_bundle(tmp_path / "bundle").manifest == blocks.manifest


def test_a_later_fit_on_a_matrix_forgets_the_data_set(blocks: Dataset) -> None:
    model = EASE(l2=5.0).fit(blocks).fit(blocks.train)
    with pytest.raises(UsageError, match=r"^got EASE fitted on a matrix, which has no item ids; give the data set too"):
        Recommender(model)
    assert replace(EASE(l2=5.0).fit(blocks)).fitted_on_ is None


def test_a_recommender_of_other_items_is_refused_where_the_model_knows_its_own(blocks: Dataset) -> None:
    model = EASE(l2=5.0).fit(blocks)
    for other in (other_items(blocks), made_anew(blocks)):
        with pytest.raises(
            DataError, match=r"^got a model fitted on blocks and a data set of other fingerprint or items"
        ):
            Recommender(model, other)
    renamed = replace(blocks, titles=None, manifest={**blocks.manifest, "source": "elsewhere"})
    assert Recommender(model, renamed).manifest == renamed.manifest  # the same matrices and ids


def test_evaluate_asks_the_test_users_of_a_data_set(blocks: Dataset) -> None:
    model = EASE(l2=5.0).fit(blocks)
    found, users = evaluate(model, blocks, "ndcg@10"), blocks.test
    per_user, overall = evaluate(model, users, "ndcg@10")
    assert np.array_equal(found.per_user["ndcg@10"], per_user["ndcg@10"]) and overall == found.overall == {}
    assert found.means == {"ndcg@10": pytest.approx(per_user["ndcg@10"].mean())}
    assert repr(found) == f"<Evaluation: ndcg@10 {found.means['ndcg@10']:.4f}>"
    as_pair = evaluate(model, (users.fold_in, users.targets), ["ndcg@10", "coverage@5"])
    assert np.array_equal(as_pair.per_user["ndcg@10"], per_user["ndcg@10"])
    assert as_pair.means["coverage@5"] == as_pair.overall["coverage@5"]
    validation = evaluate(model, blocks, "recall@3", split="validation").per_user["recall@3"]
    assert np.array_equal(validation, evaluate(model, blocks.validation, "recall@3")[0]["recall@3"])
    assert len(validation) == blocks.validation.n_users != users.n_users


def test_the_mean_of_an_evaluation_is_over_users_with_a_target(blocks: Dataset) -> None:
    targets = blocks.test.targets.toarray()
    targets[::2] = 0
    half = replace(blocks, test=HeldOut(fold_in=blocks.test.fold_in, targets=sp.csr_matrix(targets)))
    found = evaluate(EASE(l2=5.0).fit(blocks), half, "recall@3")
    values = found.per_user["recall@3"]
    assert np.isnan(values[::2]).all() and found.means["recall@3"] == pytest.approx(np.nanmean(values))
    summary = found.summary("recall@3")
    assert f">{summary.mean:.4f}<" in found._repr_html_() and f">{summary.high:.4f}<" in found._repr_html_()


def test_evaluate_and_compare_take_bundles(blocks: Dataset) -> None:
    bundle = fit_bundle(EASE(l2=5.0), blocks, device="cpu").bundle()
    model = EASE(l2=5.0).fit(blocks.train)
    assert evaluate(bundle, blocks, "ndcg@10").means == evaluate(model, blocks, "ndcg@10").means
    assert list(compare([bundle, ALS(factors=4).fit(blocks)], blocks).metrics) == ["recall@20", "recall@50", "ndcg@100"]


@pytest.mark.parametrize("measure", [evaluate, lambda model, data: compare([model], data)])
def test_a_model_is_not_measured_on_data_that_it_was_not_fitted_on(
    measure: Callable[[Model, Dataset], object], blocks: Dataset
) -> None:
    model = EASE(l2=5.0).fit(blocks)
    with pytest.raises(UsageError, match=r"^ease was not trained on blocks as it is now, and numbers on differ"):
        measure(model, made_anew(blocks))
    with pytest.raises(UsageError, match=r"^ease was fitted on other items than those of blocks; fit it on blocks"):
        measure(model, other_items(blocks))
    measure(EASE(l2=5.0).fit(blocks.train), made_anew(blocks))  # of a matrix nothing is known


def test_a_refit_is_not_measured_on_users_it_was_trained_on(blocks: Dataset) -> None:
    refit = Refit(run="ease", made="today", on="train+validation", n_users=100)
    bundle = fit_bundle(EASE(l2=5.0), blocks).bundle()
    bundle = replace(bundle, training=replace(bundle.training, refit=refit))
    with pytest.raises(UsageError, match=r"^ease was trained on train\+validation, so it has seen the targets of the"):
        evaluate(bundle, blocks, "ndcg@10", split="validation")
    assert evaluate(bundle, blocks, "ndcg@10").means


@pytest.mark.parametrize(
    ("model", "users", "split", "message"),
    [
        ("text", "data", None, r"^got a str, expected a fitted model or a bundle$"),
        (
            "recommender",
            "data",
            None,
            r"^got a Recommender, expected a fitted model or a bundle; give \.model of the",
        ),
        ("fitted", "path", None, r"^got a str to measure on, expected a Dataset or HeldOut users$"),
        ("fitted", "users", "test", r"^got split='test' with a HeldOut; only a Dataset has splits, leave it out$"),
        ("fitted", "data", "train", r"^got split 'train', expected one of: validation, test$"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    model: str, users: str, split: str | None, message: str, blocks: Dataset
) -> None:
    fitted = EASE(l2=5.0).fit(blocks)
    models: dict[str, Any] = {"text": "ease", "recommender": Recommender(fitted), "fitted": fitted}
    places: dict[str, Any] = {"data": blocks, "path": "data/ml-1m", "users": blocks.test}
    with pytest.raises(UsageError, match=message):
        evaluate(models[model], places[users], "ndcg@10", split=split)


def test_an_unfitted_model_is_refused_before_anything_is_looked_at(blocks: Dataset) -> None:
    with pytest.raises(NotFittedError):
        evaluate(EASE(), blocks, "ndcg@10")


def test_a_list_of_models_is_compared_under_their_names(blocks: Dataset) -> None:
    models = [ALS(factors=4).fit(blocks), EASE(l2=5.0).fit(blocks), Popularity().fit(blocks)]
    found = compare(models, blocks, metrics="ndcg@10")
    assert [one.name for one in found.contenders] == ["als", "ease", "popularity"] and found.baseline == "als"
    by_name = compare({model.name: model for model in models}, blocks, metrics="ndcg@10")
    assert found.to_json() == by_name.to_json()
    assert compare(models, blocks, metrics="ndcg@10", to="popularity").baseline == "popularity"


def test_two_models_of_one_kind_are_told_apart_by_their_settings(blocks: Dataset) -> None:
    first, second = EASE().fit(blocks), EASE(l2=9.0, top_k=3).fit(blocks)
    found = compare([first, second, Popularity().fit(blocks)], blocks, metrics="ndcg@10")
    assert [one.name for one in found.contenders] == ["ease", "ease (l2=9.0, top_k=3)", "popularity"]
    seeds = [ALS(factors=4, seed=seed).fit(blocks) for seed in (1, 2)]
    found = compare([seeds, ALS(factors=3).fit(blocks)], blocks, metrics="ndcg@10")
    assert [(one.name, one.seeds) for one in found.contenders] == [
        ("als (factors=4)", [1, 2]),
        ("als (factors=3)", [0]),
    ]
    with pytest.raises(UsageError, match=r"^got two models ease with the same settings, expected names: \{'NAME': mod"):
        compare([first, EASE().fit(blocks)], blocks)


def test_what_is_no_list_of_fitted_models_is_refused(blocks: Dataset) -> None:
    fitted: Any = EASE(l2=5.0).fit(blocks)
    with pytest.raises(UsageError, match=r"^got a EASE of models, expected a list of fitted models, or a dict"):
        compare(fitted, blocks)
    with pytest.raises(UsageError, match=r"^got a str for 'model 2', expected a fitted model or a bundle, or a list"):
        compare([fitted, "als"], blocks)  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"^got no model for 'model 1', expected one or more fitted ones$"):
        compare([[]], blocks)
    with pytest.raises(UsageError, match=r"^got no model, expected one or more"):
        compare([], blocks)


def test_a_blend_of_models_that_were_fitted_on_other_data_is_refused(blocks: Dataset) -> None:
    first, second = EASE(l2=5.0).fit(made_anew(blocks)), Popularity().fit(blocks)
    with pytest.raises(DataError, match=r"^the first part, ease, was fitted on blocks as it was then, and not on"):
        Blend.of(first, second, weight=0.5).fit(blocks)
    blend = Blend.of(EASE(l2=5.0).fit(blocks), second, weight=0.5)
    assert blend.fit(blocks).fitted_on_ is not None
