# Tables, verdicts on the claims, and figures of a scope: the whole grid, or the demo.


rule tables:
    input:
        results=lambda wildcards: attack_results(scope_settings(wildcards)),
        signals=lambda wildcards: signals_of(scope_settings(wildcards)),
    output:
        attacks=f"{RESULTS}/{{scope}}tables/attacks.csv",
        models=f"{RESULTS}/{{scope}}tables/models.csv",
    log:
        f"{RESULTS}/logs/{{scope}}tables.log",
    localrule: True
    script:
        "../workflow/scripts/tables.py"


rule paper_table:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        report(
            f"{RESULTS}/{{scope}}tables/{{dataset}}.csv",
            caption="../workflow/report/paper_table.rst",
            category="Tables",
            labels={"dataset": "{dataset}"},
        ),
    log:
        f"{RESULTS}/logs/{{scope}}tables_{{dataset}}.log",
    localrule: True
    script:
        "../workflow/scripts/paper_table.py"


rule claims:
    input:
        f"{RESULTS}/{{scope}}tables/attacks.csv",
    output:
        csv=f"{RESULTS}/{{scope}}claims.csv",
        md=report(
            f"{RESULTS}/{{scope}}claims.md", caption="../workflow/report/claims.rst", category="Claims"
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
        figure="samia_vs_others|gaps_vs_accuracy|accuracy_vs_sparsity_.+",
    localrule: True
    script:
        "../workflow/scripts/attack_figure.py"


def family_signals(wildcards):
    """The original's signals first, then those of the family's pruned settings."""
    settings = [
        s
        for s in scope_settings(wildcards)
        if (s.dataset, s.model) == (wildcards.dataset, wildcards.model)
        and s.pruner in (None, wildcards.pruner)
    ]
    return signals_of(settings)


rule signal_figures:
    input:
        family_signals,
    output:
        **{
            f"{kind}_{suffix}": (
                f"{RESULTS}/{{scope}}figures/{kind}_{{dataset}}_{{model}}_{{pruner}}.{suffix}"
            )
            for kind in ("signal_distributions", "gaps_per_class")
            for suffix in ("pdf", "png")
        },
    log:
        f"{RESULTS}/logs/{{scope}}figures/signals_{{dataset}}_{{model}}_{{pruner}}.log",
    localrule: True
    script:
        "../workflow/scripts/signal_figures.py"
