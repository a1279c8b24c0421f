"""Clipping: the cliff, thresholds and learning rates, norms before and after, and the four kinds."""

from recurrent_lm.studies.clipping.figures import clipping_cliff, clipping_kinds, clipping_surface, clipping_training
from recurrent_lm.studies.plotting.plots import Plot

listings = clipping_training.listings

FIG6 = "Pascanu, Mikolov & Bengio 2013, Fig. 6"

PLOTS = (
    Plot(
        "surface",
        clipping_surface.title,
        clipping_surface.draw,
        clipping_surface.caption,
        "One unit feeds itself fifty times, and E is the error at the end, over its weight w and its bias b. In front a valley "
        "that slopes gently to the foot of a wall; behind the wall, a plateau. Each dot is a step of gradient descent. Both "
        "descents come down the valley together. At the wall the gradient is huge, and points straight away from it: a step in "
        "proportion to it leaves the picture, a clipped step is short, in the same direction.",
        slides=("Gradient clipping", "Why it matters"),
        papers=FIG6,
    ),
    Plot(
        "cliff",
        clipping_cliff.title,
        clipping_cliff.draw,
        clipping_cliff.caption,
        "One unit feeds itself fifty times (Pascanu et al. 2013, Fig. 6; lecture, slides Why it matters and Gradient "
        "clipping). Left, the error seen from above, darker is higher: a gentle slope comes down to the foot of a "
        "wall. Each dot is a step of gradient descent, both paths from the same start. On the wall the gradient is "
        "huge, so a step without clipping is thrown far away; clipped, it is a short step in the same direction. "
        "Right, a cut through the wall.",
        slides=("Why it matters", "Gradient clipping"),
        papers=f"{FIG6} and Fig. 3 (fixed points)",
    ),
    Plot(
        "thresholds",
        clipping_training.title,
        clipping_training.draw,
        clipping_training.caption,
        "Each point is a language model trained by SGD (lecture, slide Gradient clipping, Algorithm 1). To the right "
        "the threshold grows, in units of the mean norm of training without clipping at the smallest rate; the last "
        "is no clipping at all. Left, lower is better; faint marks are single trainings, and where one of them diverged no "
        "point is shown. Middle, the share of steps that were shortened. Right, how many trainings gave up or ended worse than "
        "the word frequencies that they began with; the bars are Wilson's 95% intervals, wide where there are few.",
        slides=("Gradient clipping",),
        papers="Pascanu, Mikolov & Bengio 2013, section 3.2",
    ),
    Plot(
        "norms",
        clipping_training.norms_title,
        clipping_training.norms_draw,
        clipping_training.norms_caption,
        "How long the steps are, on a scale where each mark is ten times the one before (lecture, slide Gradient "
        "clipping). Clipping by norm leaves short gradients as they are and shortens the others to the threshold, "
        "where they pile up: the filled bars are the norms as computed, the line what the update was made with.",
        slides=("Gradient clipping",),
    ),
    Plot(
        "kinds",
        clipping_kinds.title,
        clipping_kinds.draw,
        clipping_kinds.caption,
        "The gradient of each dot's step was clipped in four ways at the same weights (lecture, slide Gradient "
        "clipping; Pascanu 2013, char-rnn, Mikolov 2012, Graves 2013). 1 is the true direction, 0 a right angle, and "
        "below 0 the step leads uphill. Each kind's threshold is such that it touches half of the steps, or a tenth "
        "or hundredth of that; black is the median.",
        slides=("Gradient clipping",),
        papers="Pascanu et al. 2013; char-rnn; Mikolov 2012; Graves 2013",
    ),
)
