# Prune and fine-tune the victim and the five shadows of one setting.


rule prune:
    input:
        checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/original"),
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    output:
        *map(passing, checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}")),
    log:
        f"{RESULTS}/logs/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/prune.tsv"
    group:
        "{dataset}/{model}/{pruner}_{sparsity}"
    threads: 1
    resources:
        **needs("finetuning"),
        card=1,
    params:
        recipe=recipe("finetuning"),
        defense={},
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/prune.py"


# The same with a defence in fine-tuning.
use rule prune as defend with:
    output:
        *map(passing, checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}")),
    log:
        f"{RESULTS}/logs/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}/prune.tsv"
    group:
        "{dataset}/{model}/{pruner}_{sparsity}/{defense}_{strength}"
    resources:
        **needs("finetuning"),
        card=1,
    params:
        recipe=recipe("finetuning"),
        defense=lambda wildcards: config["defense_options"][wildcards.defense],
        seed=config["seed"],
        device=config["device"],


# Reference models beyond the shadows, pruned, fine-tuned and defended as those are.
use rule prune as prune_references with:
    input:
        f"{RESULTS}/{{dataset}}/{{model}}/original/references/{{chunk}}/models.safetensors",
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    output:
        passing(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/references/{{chunk}}/models.safetensors"),
    log:
        f"{RESULTS}/logs/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/references/{{chunk}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/references/{{chunk}}/prune.tsv"
    group:
        "{dataset}/{model}/{pruner}_{sparsity}/references/{chunk}"


use rule defend as defend_references with:
    input:
        f"{RESULTS}/{{dataset}}/{{model}}/original/references/{{chunk}}/models.safetensors",
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    output:
        passing(
            f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}/references/{{chunk}}/models.safetensors"
        ),
    log:
        f"{RESULTS}/logs/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}/references/{{chunk}}/prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}/references/{{chunk}}/prune.tsv"
    group:
        "{dataset}/{model}/{pruner}_{sparsity}/{defense}_{strength}/references/{chunk}"
