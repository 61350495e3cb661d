# Signals of a setting's six models, then attacks on them: an attack never sees a model.


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
    group:
        "{setting}"
    threads: 1
    resources:
        **needs("signals"),
        card=1,
    params:
        **config["signals"],
        seed=config["seed"],
        device=config["device"],
    script:
        "../workflow/scripts/signals.py"


# A setting's jobs, from pruning on, are one group: one submission to a cluster, on one GPU. The families of attacks run
# side by side there; their networks are small enough to share it.
# A family of attacks is one job: it fits each on the setting's shadows and scores the setting's victim.
for family_name, members in grid.ATTACK_FAMILIES.items():

    rule:
        name:
            f"attack_{family_name}"
        input:
            victim=f"{RESULTS}/{{setting}}/signals.safetensors",
        output:
            [f"{RESULTS}/{{setting}}/{attack}.json" for attack in members],
            attackers=[f"{RESULTS}/{{setting}}/attackers/{attack}.safetensors" for attack in members],
        log:
            f"{RESULTS}/logs/{{setting}}/attack_{family_name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/{{setting}}/attack_{family_name}.tsv"
        group:
            "{setting}"
        threads: 1
        resources:
            **needs(family_name),
            card=int(family_name != "cheap"),
        params:
            options={attack: attack_options(attack) for attack in members},
            seed=config["seed"],
            device=config["device"],
        script:
            "../workflow/scripts/attack.py"

    # The unaware and the mismatched adversaries train nothing: their attackers were fitted on another setting's
    # shadows for that setting's own results, and only score this victim.
    rule:
        name:
            f"transfer_{family_name}"
        input:
            victim=f"{RESULTS}/{{setting}}/signals.safetensors",
            attackers=attackers_of(members),
        output:
            [f"{RESULTS}/{{setting}}/{{adversary}}/{attack}.json" for attack in members],
        log:
            f"{RESULTS}/logs/{{setting}}/{{adversary}}/attack_{family_name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/{{setting}}/{{adversary}}/attack_{family_name}.tsv"
        group:
            "{setting}/{adversary}"
        threads: 1
        resources:
            **needs("transfer"),
        params:
            options={attack: attack_options(attack) for attack in members},
            seed=config["seed"],
            device="cpu",  # scoring is cheap, and asks for no GPU
        script:
            "../workflow/scripts/attack.py"
