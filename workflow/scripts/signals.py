"""Measure the signals of a setting's six models and write them, with the facts about each model."""

from miaprune import datasets, grid, models, signals, splits
from miaprune.files import load_tensors
from miaprune.job import running

params = snakemake.params
setting = grid.Setting.parse(snakemake.wildcards.setting)

with running(snakemake.log[0], snakemake.threads, params.device) as device:
    data = datasets.load(snakemake.input.data).to(device)
    measured, facts = {}, {}
    for role, checkpoint in zip(grid.ROLES, snakemake.input, strict=False):
        state, facts[role] = load_tensors(checkpoint)
        model = models.build(setting.model, data.input_shape, data.classes, seed=0).to(device)
        model.load_state_dict(state)
        split = splits.of_role(role, len(data), params.seed)
        seed = grid.derive_seed(params.seed, setting.path, role, "signals")
        measured[role] = signals.measure(model, data, split, params.draws, params.epsilon, seed)
    signals.save(snakemake.output[0], measured, facts)
