"""Figures of the throughput study: what waiting costs, recurrences, losses, training steps, and how near to the limits."""

from recurrent_lm.studies.throughput.figures.decoder_loss import PLOT as LOSS
from recurrent_lm.studies.throughput.figures.layers import PLOT as RECURRENCE
from recurrent_lm.studies.throughput.figures.limits import PLOT as LIMITS
from recurrent_lm.studies.throughput.figures.speed import CELLS, TRAINING
from recurrent_lm.studies.throughput.figures.waiting import PLOT as WAITING

PLOTS = (WAITING, RECURRENCE, CELLS, LOSS, TRAINING, LIMITS)
