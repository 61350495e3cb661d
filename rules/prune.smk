# Prune and fine-tune the victim and the five shadows of one setting.


rule prune:
    input:
        checkpoints(f"{RESULTS}/{{dataset}}/{{model}}/original"),
        data=f"{DATA}/{{dataset}}/{{dataset}}.safetensors",
    output:
        trained(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}"),
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
        trained(f"{RESULTS}/{{dataset}}/{{model}}/{{pruner}}_{{sparsity}}/{{defense}}_{{strength}}"),
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
