"""Where the gradient of W_h comes from: the lecture's four paths, the T x T map, and norms against the lag."""

from recurrent_lm.studies.gradient_flow.figures import beside_theory, language_models_over_lag, maps, networks, paths, slopes
from recurrent_lm.studies.gradient_flow.figures.numbers import listings

__all__ = ["PLOTS", "listings"]

PLOTS = (
    paths.PLOT,
    maps.PLOT,
    networks.PLOT,
    beside_theory.PLOT,
    slopes.PLOT,
    beside_theory.GATES,
    language_models_over_lag.CURVES,
    language_models_over_lag.TRAINING,
)
