"""Measure the margins of a setting's further reference models: all that the attacks need of them."""

import numpy as np
import roles
from job import running

from miaprune import grid, margins
from miaprune.data import datasets
from miaprune.extensions import register
from miaprune.networks import models

register(snakemake.config)

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting.parse(wildcards.setting)

with running(snakemake.log[0], snakemake.threads, params.device) as device:
    data = datasets.load(snakemake.input.data).to(device)
    measured, about = {}, {}
    for role, (state, facts) in roles.load([snakemake.input.models], roles.roles_of(wildcards), data.digest).items():
        model = models.load(setting.model, data.input_shape, data.classes, state).to(device)
        measured[role], about[role] = np.full(len(data), np.nan, np.float32), facts
        margins.fill(model, data, measured[role], role)
    margins.save(snakemake.output[0], measured, about)
