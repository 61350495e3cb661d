"""Draw what members and non-members look like to an attacker, the original beside a family of pruned models."""

from job import logged

from miaprune import signals
from miaprune.report import figures

with logged(snakemake.log[0]):
    original, *pruned = (signals.load(path, "victim") for path in snakemake.input)
    family = dict(zip(snakemake.params.labels, pruned, strict=True))
    place = "/".join((snakemake.wildcards.dataset, snakemake.wildcards.model, snakemake.wildcards.pruner))
    for draw, what in (
        (figures.signal_distributions, "Signals of members and of non-members"),
        (figures.gaps_per_class, "How far members stand out, class by class"),
    ):
        path = getattr(snakemake.output, f"{draw.__name__}_pdf")
        figures.save(draw(original, family, f"{what}: {place}"), path.removesuffix(".pdf"))
