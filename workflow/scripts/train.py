"""Train the victim and the shadow models of one (dataset, model) and write their checkpoints."""

from job import running, states_of

from miaprune import grid
from miaprune.data import datasets, splits
from miaprune.devices import name_of
from miaprune.files import save_tensors
from miaprune.networks import models
from miaprune.report.results import stage
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import train_roles

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting(wildcards.dataset, wildcards.model)


def main(device, states):
    data = datasets.load(snakemake.input.data).to(device)
    seeds = {role: grid.derive_seed(params.seed, setting.path, role) for role in grid.ROLES}
    parts = {role: splits.of_role(role, len(data), params.seed) for role in grid.ROLES}
    trained = {
        role: models.build(setting.model, data.input_shape, data.classes, seed).to(device)
        for role, seed in seeds.items()
    }
    print(setting.path)
    objectives = dict.fromkeys(grid.ROLES, CrossEntropy())
    facts = train_roles(trained, data, parts, params.recipe, objectives, seeds, states)
    for path, (role, model) in zip(snakemake.output, trained.items(), strict=True):
        print(f"{role}: {facts[role]}")
        about = {
            "setting": setting.path,
            "role": role,
            "seed": params.seed,
            "achieved_sparsity": 0.0,
            "data": data.digest,
        }
        about |= stage(params.recipe, name_of(device))
        save_tensors(path, model.state_dict(), facts[role] | about)
    states.keep(snakemake.output)


with running(snakemake.log[0], snakemake.threads, params.device) as device:
    states = states_of(snakemake.config, setting, params.items(), snakemake.input, device, __file__)
    with states.stoppable():
        if not states.put_back(snakemake.output):
            main(device, states)
