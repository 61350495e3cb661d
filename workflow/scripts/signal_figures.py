"""Draw what members and non-members look like to an attacker, the original beside a family of pruned models."""

from job import logged

from miaprune import grid, margins, signals
from miaprune.extensions import register
from miaprune.report import figures

register(snakemake.config)

with logged(snakemake.log[0]):
    original, *pruned = (signals.load(path, "victim") for path in snakemake.input.signals)
    first, *others = (margins.load([path], snakemake.params.seed, grid.SHADOWS) for path in snakemake.input.margins)
    labels = snakemake.params.labels
    family = dict(zip(labels, pruned, strict=True))
    of_family = dict(zip(labels, zip(others, (s.members for s in pruned), strict=True), strict=True))
    place = "/".join((snakemake.wildcards.dataset, snakemake.wildcards.model, snakemake.wildcards.pruner))
    for draw, what, seen in (
        (figures.signal_distributions, "Signals of members and of non-members", (original, family)),
        (figures.gaps_per_class, "How far members stand out, class by class", (original, family)),
        (figures.margin_distributions, "Margins of members and of non-members", ((first, original.members), of_family)),
    ):
        path = getattr(snakemake.output, f"{draw.__name__}_pdf")
        figures.save(draw(*seen, f"{what}: {place}"), path.removesuffix(".pdf"))
