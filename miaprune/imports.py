"""All that job scripts import, for the process whose forks run them (`rules/run.smk`)."""

import gc

import miaprune.attacks.blindmi
import miaprune.attacks.neural
import miaprune.attacks.thresholds
import miaprune.claims
import miaprune.datasets
import miaprune.defenses
import miaprune.figures
import miaprune.results  # noqa: F401

gc.freeze()  # it stays: no fork's garbage collection need look through it, which would copy its pages
