# Tables, verdicts on the claims, and figures of a scope: the whole grid, or the demo.


rule tables:
    input:
        results=lambda wildcards: attack_results(SCOPES[wildcards.scope]),
        signals=lambda wildcards: signals_of(settings_of(wildcards.scope)),
    output:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    log:
        f"{RESULTS}/logs/{{scope}}tables.log",
    localrule: True
    params:
        settings=lambda wildcards: [s.path for s in settings_of(wildcards.scope)],
        seed=config["seed"],
    script:
        "../workflow/scripts/tables.py"


rule paper_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}tables/{{dataset}}.csv",
        page=report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}.html",
            caption="../workflow/report/page.rst",
            category="Tables",
            labels={"table": "{dataset}"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}.log",
    localrule: True
    params:
        table="paper_table",
    script:
        "../workflow/scripts/dataset_table.py"


rule defense_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}tables/{{dataset}}_defenses.csv",
        page=report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}_defenses.html",
            caption="../workflow/report/page.rst",
            category="Tables",
            labels={"table": "{dataset}, defences"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}_defenses.log",
    localrule: True
    params:
        table="defense_table",
    script:
        "../workflow/scripts/dataset_table.py"


rule claims:
    input:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    output:
        csv=f"{RESULTS}/{{scope}}claims.csv",
        md=f"{RESULTS}/{{scope}}claims.md",
        page=report(
            f"{RESULTS}/{{scope}}claims.html",
            caption="../workflow/report/page.rst",
            category="Claims",
            labels={"claims": "the verdicts"},
        ),
        summary=f"{RESULTS}/{{scope}}summary.txt",
    log:
        f"{RESULTS}/logs/{{scope}}claims.log",
    localrule: True
    script:
        "../workflow/scripts/claims.py"


rule attack_figure:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        pdf=f"{RESULTS}/{{scope}}figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/{{scope}}figures/{{figure}}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}figures/{{figure}}.log",
    wildcard_constraints:
        figure="samia_vs_others|gaps_vs_accuracy",
    localrule: True
    params:
        figure="{figure}",
        of={},
    script:
        "../workflow/scripts/attack_figure.py"


rule pair_figure:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        pdf=f"{RESULTS}/{{scope}}figures/{{figure}}_{{dataset}}_{{model}}.pdf",
        png=report(
            f"{RESULTS}/{{scope}}figures/{{figure}}_{{dataset}}_{{model}}.png",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}, {dataset}, {model}"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}figures/{{figure}}_{{dataset}}_{{model}}.log",
    wildcard_constraints:
        figure=any_of(PAIR_FIGURES),
    localrule: True
    params:
        figure="{figure}",
        of=lambda wildcards: {"dataset": wildcards.dataset, "model": wildcards.model},
    script:
        "../workflow/scripts/attack_figure.py"


rule signal_figures:
    input:
        family_signals,
    output:
        **{
            f"{kind}_pdf": f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.pdf"
            for kind in SIGNAL_FIGURES
        },
        **{
            f"{kind}_png": report(
                f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.png",
                caption="../workflow/report/figure.rst",
                category="Figures",
                labels={"figure": f"{kind}, {{dataset}}, {{model}}, {{pruner}}"},
            )
            for kind in SIGNAL_FIGURES
        },
    log:
        f"{RESULTS}/logs/{{scope}}figures/signals_{{dataset}}_{{model}}_{{pruner}}.log",
    localrule: True
    params:
        labels=family_labels,
    script:
        "../workflow/scripts/signal_figures.py"
