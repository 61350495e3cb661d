"""Prune the six original models of one (dataset, model), fine-tune them, defended or not, and write checkpoints."""

from miaprune import datasets, defenses, grid, models, pruning, resume, splits
from miaprune.files import load_tensors, save_tensors
from miaprune.job import running
from miaprune.training import CrossEntropy, train

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting(**dict(wildcards.items()))


def main(device, states):
    data = datasets.load(snakemake.input.data).to(device)
    trained = []
    for i, (role, original) in enumerate(zip(grid.ROLES, snakemake.input, strict=False)):
        # A defence changes the objective and nothing else: the same draws as without it.
        seed = grid.derive_seed(params.seed, setting.undefended.path, role)
        model = models.build(setting.model, data.input_shape, data.classes, seed).to(device)
        model.load_state_dict(load_tensors(original)[0])
        pruning.PRUNERS[setting.pruner](model, float(setting.sparsity))
        achieved = pruning.achieved_sparsity(model, setting.pruner)
        layers = pruning.layer_sparsity(model, setting.pruner)
        print(f"{setting.path} {role}: achieved sparsity {achieved:.4f}; gone of all, per layer: {layers}")
        split = splits.of_role(role, len(data), params.seed)
        if setting.defense is None:
            objective = CrossEntropy()
        else:
            strength = float(setting.strength)
            objective = defenses.build(setting.defense, strength, params.defense, data, split, params.recipe, seed)
        facts = train(model, data, split, params.recipe, objective, seed, states.slot(role), more=grid.SHADOWS - i)
        print(f"{role}: {facts}")
        facts |= {"role": role, "seed": params.seed, "achieved_sparsity": achieved, "layers": layers}
        trained.append((pruning.finalise(model).state_dict(), facts | {"recipe": params.recipe}))
    for path, (state, facts) in zip(snakemake.output, trained, strict=True):
        save_tensors(path, state, facts)
    states.keep(snakemake.output)


with running(snakemake.log[0], snakemake.threads, params.device) as device:
    states = resume.States.of_job(snakemake.config, setting, params.items(), snakemake.input, device)
    with states.stoppable():
        if not states.put_back(snakemake.output):
            main(device, states)
