"""Train the victim and the shadow models of one (dataset, model) and write their checkpoints."""

from miaprune import datasets, grid, models, resume, splits
from miaprune.files import save_tensors
from miaprune.job import running
from miaprune.training import CrossEntropy, train

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting(wildcards.dataset, wildcards.model)


def main(device, states):
    data = datasets.load(snakemake.input.data).to(device)
    trained = []
    for i, role in enumerate(grid.ROLES):
        seed = grid.derive_seed(params.seed, setting.path, role)
        model = models.build(setting.model, data.input_shape, data.classes, seed).to(device)
        print(f"{setting.path} {role}")
        split = splits.of_role(role, len(data), params.seed)
        facts = train(model, data, split, params.recipe, CrossEntropy(), seed, states.slot(role), more=grid.SHADOWS - i)
        print(f"{role}: {facts}")
        facts |= {"role": role, "seed": params.seed, "achieved_sparsity": 0.0, "recipe": params.recipe}
        trained.append((model.state_dict(), facts))
    for path, (state, facts) in zip(snakemake.output, trained, strict=True):
        save_tensors(path, state, facts)
    states.keep(snakemake.output)


with running(snakemake.log[0], snakemake.threads, params.device) as device:
    states = resume.States.of_job(snakemake.config, setting, params.items(), snakemake.input, device)
    with states.stoppable():
        if not states.put_back(snakemake.output):
            main(device, states)
