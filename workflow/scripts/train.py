"""Train the models of one (dataset, model), victim and shadows or further references, and write their checkpoints."""

import roles
from job import running, states_of

from miaprune import grid
from miaprune.data import datasets, splits
from miaprune.devices import name_of
from miaprune.extensions import register
from miaprune.networks import models
from miaprune.report.results import stage
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import train_roles

register(snakemake.config)

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting.parse(f"{wildcards.repetition}{wildcards.dataset}/{wildcards.model}/original")
trained = roles.roles_of(wildcards)
used = [grid.DATASETS[setting.dataset], grid.MODELS[setting.model]]


def main(device, states):
    data = datasets.load(snakemake.input.data).to(device)
    seeds = {role: grid.derive_seed(params.seed, setting.name, role) for role in trained}
    parts = {role: splits.of_role(role, len(data), params.seed) for role in trained}
    networks = {
        role: models.build(setting.model, data.input_shape, data.classes, seed).to(device)
        for role, seed in seeds.items()
    }
    print(setting.name)
    objective = CrossEntropy()
    # Nobody knows whether a user's network can be captured.
    objective.by_loss = grid.MODELS[setting.model].extension is None
    objectives = dict.fromkeys(trained, objective)
    facts = train_roles(networks, data, parts, params.recipe, objectives, seeds, states)
    ended = {}
    for role, network in networks.items():
        print(f"{role}: {facts[role]}")
        about = {"setting": setting.name, "role": role, "seed": params.seed, "data": data.digest}
        about |= {"achieved_sparsity": 0.0} | stage(params.recipe, name_of(device), used)
        ended[role] = network.state_dict(), facts[role] | about
    roles.save(snakemake.output, ended)
    states.keep(snakemake.output)


with running(snakemake.log[0], snakemake.threads, params.device) as device:
    place = roles.place_of(setting, wildcards)
    states = states_of(snakemake.config, place, params.items(), snakemake.input, device, __file__)
    with states.stoppable():
        if not states.put_back(snakemake.output):
            main(device, states)
