"""How models learn: a page of one training, or of several side by side, built once or repeatedly while they run."""

from recurrent_lm.reports.training.asked import Models as Models
from recurrent_lm.reports.training.watch import place_of as place_of
from recurrent_lm.reports.training.watch import watch as watch
from recurrent_lm.reports.training.watch import write_page as write_page
