"""Measure the signals and margins of a setting's six models and write them, with the facts about each model."""

import logging
import time

import numpy as np
from job import running

from miaprune import grid, margins, signals
from miaprune.data import datasets, splits
from miaprune.devices import name_of
from miaprune.extensions import register
from miaprune.files import check_facts, load_tensors
from miaprune.networks import models
from miaprune.report.results import stage
from miaprune.training.stopping import span

register(snakemake.config)

params = snakemake.params
setting = grid.Setting.parse(snakemake.wildcards.setting)
logger = logging.getLogger("miaprune.signals")

with running(snakemake.log[0], snakemake.threads, params.device) as device:
    data = datasets.load(snakemake.input.data).to(device)
    measured, facts, started = {}, {}, time.perf_counter()
    of_all = {role: np.full(len(data), np.nan, np.float32) for role in grid.ROLES}
    for done, (role, checkpoint) in enumerate(zip(grid.ROLES, snakemake.input, strict=False), start=1):
        state, facts[role] = load_tensors(checkpoint)
        check_facts(checkpoint, facts[role], {"data": data.digest})
        facts[role]["records"] = len(data)
        facts[role]["signals"] = stage(
            {"draws": params.draws, "epsilon": params.epsilon}, name_of(device), [grid.MODELS[setting.model]]
        )
        model = models.load(setting.model, data.input_shape, data.classes, state).to(device)
        split = splits.of_role(role, len(data), params.seed)
        seed = grid.derive_seed(params.seed, setting.name, role, "signals")
        measured[role] = signals.measure(model, data, split, params.draws, params.epsilon, seed, role, of_all[role])
        margins.fill(model, data, of_all[role], role)
        pace, records = (time.perf_counter() - started) / done, len(measured[role])
        left = span(pace * (len(grid.ROLES) - done))
        logger.info(f"{setting.name} {role}: {records} records, {records / pace:.0f} records/s, about {left} left")
    signals.save(snakemake.output.signals, measured, facts)
    margins.save(snakemake.output.margins, of_all, facts)
