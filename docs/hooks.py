"""What MkDocs builds besides the pages in docs/: the configuration's page from its schema, and pages from elsewhere.

Pages link to ``../benchmarks/*.md`` and ``../CHANGELOG.md``, as they lie in the repository; here these become pages of
the site.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
DEFAULTS = ROOT / "config.yaml"
ELSEWHERE = re.compile(r"\]\(\.\./((?:benchmarks/|CHANGELOG)[^)]*)\)")
CODE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")

INTRO = r"""# Configuration

    .venv/bin/snakemake --profile profiles/local all \
        --configfile mine.yaml --config 'seeds=[8]' results_dir=results/mine

Four places are read, the later the stronger: the `config.yaml` of the checkout, a `config.yaml` in the working folder,
`--configfile`, `--config`. Each needs to hold only what it changes. A wrong key, name or value stops the run before any
job starts, with one line.

This page is made from `workflow/schemas/config.schema.json`, its defaults from `config.yaml`.
"""
GRID = ("datasets", "models", "pruners", "sparsities", "attacks")
HEAD = "| key | what it may be | default | what it is |\n| --- | --- | --- | --- |\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated page, the benchmarks' pages and pictures, and the list of changes."""
    files.append(File.generated(config, "configuration.md", content=configuration_page()))
    for path in (*sorted(ROOT.glob("benchmarks/*.md")), *sorted(ROOT.glob("benchmarks/*.png")), ROOT / "CHANGELOG.md"):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to where these pages lie in the site; what is no page there is a name only."""
    if page.file.src_uri == "CHANGELOG.md":
        markdown = markdown.replace("](docs/", "](")
    return CODE.sub(r"`\1`", ELSEWHERE.sub(r"](\1)", markdown))


def configuration_page() -> str:
    """The configuration as Markdown: its single keys, its grid, and each block, with the defaults of config.yaml."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    text = DEFAULTS.read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    top = schema["properties"]
    blocks = [key for key in top if isinstance(defaults[key], dict) or key == "defenses"]
    single = [key for key in top if key not in (*blocks, *GRID)]

    def table(keys: list[str]) -> str:
        return HEAD + "".join(row for key in keys for row in rows(top[key], schema, key, [("", defaults[key])]))

    parts = [INTRO, f"{schema['description']}\n", "## Single keys\n", table(single), "## The grid\n", table(list(GRID))]
    for key in blocks:
        node = resolved(top[key], schema)
        inside = "".join(rows(node, schema, "", [("", defaults[key])]))
        parts += [f"## `{key}`\n", f"{top[key]['description']}\n", HEAD + inside if inside else ""]
        if nested(node):
            parts += ["As `config.yaml` has it:\n", f"```yaml\n{block_of(text, key)}\n```\n"]
    return "\n".join(parts)


def resolved(node: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A node of the schema with the definition that it refers to; its own description goes first."""
    if "$ref" in node:
        return {**schema["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return dict(node)


def nested(node: Mapping[str, Any]) -> bool:
    """Whether a block holds lists of blocks or names of one's own, which a table cannot show."""
    inner = node.get("properties", {}).values()
    return node.get("type") == "array" or isinstance(node.get("additionalProperties"), dict) or any(map(nested, inner))


def rows(node: Mapping[str, Any], schema: Mapping[str, Any], key: str, values: list[tuple[str, Any]]) -> Iterator[str]:
    """The table's rows of a node and of all below it; ``values`` are its defaults, by the name they stand under."""
    elsewhere = "$ref" in node and key  # a definition is shown below the top-level key that refers to it
    node = resolved(node, schema)
    own, items = node.get("additionalProperties"), resolved(node.get("items", {}), schema)
    if key and node.get("description"):
        yield f"| `{key}` | {kind(node, items)} | {default(node, items, values)} | {node['description']} |\n"
    if elsewhere:
        return
    for name, inner in node.get("properties", {}).items():
        below = [(of, value[name]) for of, value in values if isinstance(value, dict) and name in value]
        yield from rows(inner, schema, f"{key}.{name}".lstrip("."), below)
    if isinstance(own, dict):
        named = [(name, value) for _, block in values for name, value in block.items()]
        yield from rows(own, schema, f"{key}.NAME".lstrip("."), named)
    if "properties" in items:
        yield from rows(items | {"description": ""}, schema, f"{key}[]".lstrip("."), [])


def kind(node: Mapping[str, Any], items: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    if node.get("type") == "array":
        if "enum" in items:
            return "list of " + ", ".join(f"`{value}`" for value in items["enum"])
        if "properties" in items:
            return "list of blocks"
        return "list of whole numbers" if items.get("type") == "integer" else "list of names or numbers"
    if node.get("type") in ("integer", "number"):
        words = ["whole number" if node["type"] == "integer" else "number"]
        words += [f"{said} {node[bound]}" for bound, said in BOUNDS.items() if bound in node]
        return ", ".join(words)
    return {"boolean": "`true` or `false`", "string": "text", "object": "block"}[node["type"]]


BOUNDS = {"minimum": "from", "maximum": "to", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}


def default(node: Mapping[str, Any], items: Mapping[str, Any], values: list[tuple[str, Any]]) -> str:
    """The defaults, each with the name it stands under; none for a block, whose keys have theirs."""
    if node.get("type") == "object" or "properties" in items:
        return ""
    return "; ".join(f"{name}: {shown(value)}" if name else shown(value) for name, value in values)


def shown(value: Any) -> str:
    """A value as one would write it."""
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"`{json.dumps(value).strip(chr(34))}`"


def block_of(text: str, key: str) -> str:
    """The lines of config.yaml that set a key."""
    found = re.search(rf"^{key}:.*\n(?:(?:[ #].*)?\n)*", text, flags=re.M)
    assert found, key
    lines = found[0].rstrip().splitlines()
    while lines and lines[-1].startswith("#"):  # a comment on what comes next
        lines.pop()
    return "\n".join(lines).rstrip()
