# Signals of a setting's six models, then attacks on them: an attack never sees a model.


def data_of(wildcards):
    dataset = wildcards.setting.split("/")[0]
    return f"{DATA}/{dataset}/{dataset}.safetensors"


rule signals:
    input:
        checkpoints(f"{RESULTS}/{{setting}}"),
        data=data_of,
    output:
        f"{RESULTS}/{{setting}}/signals.safetensors",
    log:
        f"{RESULTS}/logs/{{setting}}/signals.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/signals.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        **config["signals"],
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/signals.py"


rule attack:
    input:
        victim=f"{RESULTS}/{{setting}}/signals.safetensors",
    output:
        f"{RESULTS}/{{setting}}/{{attack}}.json",
        attackers=f"{RESULTS}/{{setting}}/attackers/{{attack}}.safetensors",
    log:
        f"{RESULTS}/logs/{{setting}}/{{attack}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/{{attack}}.tsv"
    wildcard_constraints:
        attack=any_of(set(grid.ATTACKS) - set(grid.THRESHOLD_ATTACKS)),
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        options=lambda wildcards: {wildcards.attack: attack_options(wildcards.attack)},
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/attack.py"


# The threshold attacks cost milliseconds, so one process runs the family.
rule threshold_attacks:
    input:
        victim=f"{RESULTS}/{{setting}}/signals.safetensors",
    output:
        [f"{RESULTS}/{{setting}}/{attack}.json" for attack in grid.THRESHOLD_ATTACKS],
        attackers=[f"{RESULTS}/{{setting}}/attackers/{attack}.safetensors" for attack in grid.THRESHOLD_ATTACKS],
    log:
        f"{RESULTS}/logs/{{setting}}/threshold_attacks.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/threshold_attacks.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        options={attack: attack_options(attack) for attack in grid.THRESHOLD_ATTACKS},
        seed=config["seed"],
        device="cpu",
    script:
        "../workflow/scripts/attack.py"


def shadows_of(wildcards):
    return grid.shadows_of(grid.Setting.parse(wildcards.setting), wildcards.adversary).path


# The unaware and the mismatched adversaries train nothing: their attackers were fitted on another setting's
# shadows for that setting's own results, and only score this victim.
rule transferred_attacks:
    input:
        victim=f"{RESULTS}/{{setting}}/signals.safetensors",
        attackers=lambda wildcards: [
            f"{RESULTS}/{shadows_of(wildcards)}/attackers/{attack}.safetensors" for attack in config["attacks"]
        ],
    output:
        [f"{RESULTS}/{{setting}}/{{adversary}}/{attack}.json" for attack in config["attacks"]],
    log:
        f"{RESULTS}/logs/{{setting}}/{{adversary}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{setting}}/{{adversary}}.tsv"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        options={attack: attack_options(attack) for attack in config["attacks"]},
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/attack.py"
