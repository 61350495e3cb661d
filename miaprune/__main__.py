"""The command line: ``miaprune audit``. Needs no Snakemake, and imports what it needs when it needs it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence

EPILOG = """\
files: .npz, .safetensors, .csv or .parquet. Arrays logits or posteriors [n, C], labels [n], members [n], and for SAMIA
sensitivities [n, C]; in tables columns label, member, p0, p1, ... or logit0, logit1, ... All versions have the same
records in the same order. References: logits or posteriors [K, n, C] and members [K, n], of the same records.

example:
  miaprune audit --example example
  miaprune audit original=example/original.npz pruned=example/pruned.npz \\
    --references original=example/references_original.npz \\
    --references pruned=example/references_pruned.npz --out audit
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 after an error of one line, 2 where the command makes no sense."""
    parser = argparse.ArgumentParser(prog="miaprune", description="Membership inference attacks on pruned networks.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="audit")
    audit = commands.add_parser(
        "audit",
        help="how much models leak that were trained elsewhere, from what they said",
        description="How much do versions of a model leak about who was in their training data, and did compressing it "
        "raise that? From files of what they said.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument(
        "versions", nargs="*", metavar="NAME=FILE", help="a version; the others are compared with the first"
    )
    audit.add_argument(
        "--references",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="what reference models said: of one version, or of all",
    )
    audit.add_argument("--out", metavar="FOLDER", help="where results, tables and report.html go")
    audit.add_argument("--seed", type=int, default=7, help="of folds, networks and bootstraps (default: 7)")
    audit.add_argument("--example", metavar="FOLDER", help="write an example to audit, and nothing else")
    given = parser.parse_args(arguments)
    if given.example is None and (not given.versions or given.out is None):
        audit.error("name a version and a folder: miaprune audit original=original.npz --out audit")
    if given.example is not None and (given.versions or given.references or given.out):
        audit.error("--example goes alone: miaprune audit --example FOLDER")
    try:
        return _example(given.example) if given.example is not None else _audit(given)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130


def _example(folder: str) -> int:
    from miaprune.audit.example import write

    print(write(folder))
    return 0


def _audit(given: argparse.Namespace) -> int:
    # What can be wrong at first sight is found before anything is read or slow to import.
    from miaprune.audit.sources import check_path

    files = _named(given.versions)
    references = _named(given.references, tuple(files))
    for path in (*files.values(), *references.values()):
        check_path(path)
    from miaprune.audit.folder import check_folder, check_name

    for name in files:
        check_name(name)
    check_folder(given.out)

    import logging

    from miaprune.audit.folder import answer, caveats, write
    from miaprune.audit.running import check_alike, run
    from miaprune.audit.sources import read_references, read_version

    logger = logging.getLogger("miaprune")  # and no other: matplotlib says more than anybody wants to know
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    logging.getLogger("miaprune.attacks").setLevel(logging.ERROR)  # a network's refits: what counts is in its result
    versions = {}
    for name, path in files.items():
        versions[name] = read_version(path)
        first = next(iter(versions))
        check_alike(first, versions[first].signals, name, versions[name].signals)
    read = {path: read_references(path, versions[first].signals.labels) for path in dict.fromkeys(references.values())}
    found = run(versions, {name: read[path] for name, path in references.items()}, given.seed)
    folder = write(found, given.out)
    for sentence in (*answer(found), *caveats(found)):
        print(textwrap.fill(sentence, 100, subsequent_indent="  "))
    print(f"{folder / 'report.html'}")
    return 0


def _named(given: Sequence[str], versions: Sequence[str] | None = None) -> dict[str, str]:
    """Files by name; without one, a file of references (``versions`` has the names) is all versions'."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, path = each.partition("=")
        if not equals and versions is not None:
            name, path, names = each, each, versions
        else:
            names = [name]
        if not name or not path or (not equals and versions is None):
            raise ValueError(f"{each}: a version is given as NAME=FILE, such as original={each or 'original.npz'}")
        for one in names:
            if one in found:
                raise ValueError(f"{each}: a second file for {one}; give each version one")
            if versions is not None and one not in versions:
                raise ValueError(f"{each}: no version {one}; there are {', '.join(versions)}")
            found[one] = path
    return found


if __name__ == "__main__":
    sys.exit(main())
