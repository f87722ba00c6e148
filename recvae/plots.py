"""Pictures of runs: data in, a matplotlib Figure out, nothing of pyplot's state touched.

Each function takes arrays, not runs, so that it draws what any program has measured; `recvae plot` measures runs and
draws them. Needs matplotlib, of the extra `plot`.
"""

from recvae.latent.projections import principal_components as principal_components
from recvae.reports.accuracy import accuracy_by_history as accuracy_by_history
from recvae.reports.accuracy import accuracy_by_popularity as accuracy_by_popularity
from recvae.reports.accuracy import metric_by_k as metric_by_k
from recvae.reports.canvas import save as save
from recvae.reports.curves import training_curves as training_curves
from recvae.reports.latent import latent_map as latent_map
from recvae.reports.latent import segment_map as segment_map
from recvae.reports.logs import read_log as read_log
from recvae.reports.popularity import concentration as concentration
from recvae.reports.popularity import coverage_curve as coverage_curve
from recvae.reports.popularity import popularity_bias as popularity_bias
from recvae.reports.popularity import popularity_of_histories as popularity_of_histories
from recvae.reports.popularity import popularity_of_lists as popularity_of_lists
from recvae.reports.popularity import times_recommended as times_recommended
