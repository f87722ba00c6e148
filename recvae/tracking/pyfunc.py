"""What MLflow loads: a recommender that takes a table of histories. MLflow keeps this file as it is, as text.

It is read by MLflow, with `artifacts["bundle"]` the folder of a bundle; nothing else needs to import it.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class RecommenderModel(PythonModel):
    """A recommender as a pyfunc: a row for each user and item in, a row for each recommended item out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle."""
        from recvae.recommenders.recommender import Recommender

        self.recommender = Recommender.load(context.artifacts["bundle"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:  # noqa: ARG002
        """Recommend items to each user of a table; see `Recommender.recommend_batch` for the parameters."""
        return self.recommender.recommend_batch(model_input, **(params or {})).to_pandas()


set_model(RecommenderModel())
