"""What job scripts import, but for what only few of them do.

A run's jobs are forks of one process that has imported this (`rules/run.smk`); it must neither start threads nor ask
CUDA anything, which would forbid the forks to use it.
"""

import gc

import miaprune.attacks.blindmi
import miaprune.attacks.neural
import miaprune.attacks.thresholds
import miaprune.claims
import miaprune.datasets
import miaprune.defenses
import miaprune.figures
import miaprune.results
import miaprune.splits

miaprune.results.commit()  # of the code as it is now; forks know it from here
gc.freeze()  # it stays: no fork's garbage collection need look through it, which would copy its pages
