"""Prune the originals of one (dataset, model), fine-tune them, defended or not, and write checkpoints."""

import roles
import torch
from job import running, states_of

from miaprune import grid
from miaprune.data import datasets, splits
from miaprune.devices import name_of
from miaprune.extensions import register
from miaprune.networks import models, pruning
from miaprune.report.results import TRAINED_KEYS, stage
from miaprune.training import defenses
from miaprune.training.loop import evaluate
from miaprune.training.objectives import CrossEntropy
from miaprune.training.together import train_roles

register(snakemake.config)

params, wildcards = snakemake.params, snakemake.wildcards
setting = grid.Setting.parse(f"{wildcards.repetition}{wildcards.dataset}/{wildcards.model}/{wildcards.version}")

used = [grid.MODELS[setting.model]]
used += [grid.PRUNERS[setting.pruner]] if setting.pruner else []
used += [grid.DEFENSES[setting.defense]] if setting.defense else []
own = any(entry.extension for entry in used)


def pruned(state, data, split, device, seed):
    model = models.load(setting.model, data.input_shape, data.classes, state).to(device)
    if setting.pruner is None:
        return model
    records = data.batch(torch.from_numpy(split.train[: pruning.CALIBRATION]).to(device))
    torch.manual_seed(grid.derive_seed(seed, "pruning"))
    pruning.prune(setting.pruner, model, float(setting.sparsity), records)
    return model


def objective(data, split, seed):
    if setting.defense is None:
        found = CrossEntropy()
    else:
        strength = float(setting.strength)
        found = defenses.build(setting.defense, strength, params.defense, data, split, params.recipe, seed)
    if own:  # nobody knows whether it can be captured
        found.by_loss = False
    return found


def main(device, states):
    data = datasets.load(snakemake.input.data).to(device)
    files = list(snakemake.input)
    originals = roles.load(files[: files.index(snakemake.input.data)], roles.roles_of(wildcards), data.digest)
    # A defence changes the objective and nothing else: the same draws as without it; untuned, the same are pruned.
    undefended = f"{setting.dataset}/{setting.model}/{setting.variant}"
    seeds = {role: grid.derive_seed(params.seed, undefended, role) for role in originals}
    parts = {role: splits.of_role(role, len(data), params.seed) for role in originals}
    trained = {role: pruned(state, data, parts[role], device, seeds[role]) for role, (state, _) in originals.items()}
    achieved = {
        role: pruning.achieved_sparsity(model, setting.pruner) if setting.pruner else 0.0
        for role, model in trained.items()
    }
    layers = {role: pruning.layer_sparsity(model, setting.pruner or "") for role, model in trained.items()}
    for role in trained:
        print(f"{setting.name} {role}: achieved sparsity {achieved[role]:.4f}; gone of all, per layer: {layers[role]}")
    if setting.tuning == grid.UNTUNED:
        facts = {
            # What a model says that nothing was to train is no failure, even if it is a constant (section 7).
            role: {"epoch": 0, "epochs_run": 0} | evaluate(model, data, parts[role], name=f"{role} ") | {"learnt": None}
            for role, model in trained.items()
        }
    else:
        objectives = {role: objective(data, parts[role], seeds[role]) for role in trained}
        facts = train_roles(trained, data, parts, params.recipe, objectives, seeds, states)
    ended = {}
    for role, model in trained.items():
        print(f"{role}: {facts[role]}")
        about = {"setting": setting.name, "role": role, "seed": params.seed, "data": data.digest}
        about |= {"achieved_sparsity": achieved[role], "layers": layers[role]}
        about |= {"original": {key: originals[role][1].get(key) for key in TRAINED_KEYS}}
        about |= stage(params.recipe, name_of(device), used) | {"defense_options": params.defense or None}
        ended[role] = pruning.finalise(model).state_dict(), facts[role] | about
    roles.save(snakemake.output, ended)
    states.keep(snakemake.output)


with running(snakemake.log[0], snakemake.threads, params.device) as device:
    place = roles.place_of(setting, wildcards)
    states = states_of(snakemake.config, place, params.items(), snakemake.input, device, __file__)
    with states.stoppable():
        if not states.put_back(snakemake.output):
            main(device, states)
