"""A web page in one file that needs no other: text, tables to sort and filter, and pictures that stay sharp."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pandas as pd
from markdown_it import MarkdownIt

from miaprune.files import FileError, write_text

LIMIT = 5_000_000
"""Bytes of a page. Pictures that do not fit any more are linked; the first take precedence."""

FEW = 8
"""A table of so many rows or fewer is read at once, and has no filter."""


@dataclass(frozen=True)
class Link:
    """In a table's cell: a text that leads to a file, by its path relative to the page."""

    text: str
    to: str


@dataclass(frozen=True)
class Table:
    """A table, in the order that it has before a reader sorts it.

    Attributes
    ----------
    frame : a cell is text, a number, None or NaN for nothing, a `Link` or a list of them. A text's first line is what
        is sorted by; further lines, such as an interval, stand below it in smaller type. The first column names the
        row and stays in sight. The index is not shown.
    title : stands above.
    text : how to read it, in Markdown.
    """

    frame: pd.DataFrame
    title: str = ""
    text: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as SVG, without the words that stand above and below it.

    Attributes
    ----------
    svg : the file's text.
    title : what is shown: above it, and read out in its place.
    caption : how to read it.
    file : where the picture lies, relative to the page; linked in its place when the page has no room for it.
    """

    svg: str
    title: str
    caption: str = ""
    file: str = ""


def picture(svg: str, file: str = "") -> Picture:
    """One of `miaprune.report.figures.as_svg`; raises `FileError` if it is damaged or says no title of itself."""
    try:
        said = {name: ElementTree.fromstring(svg).findtext(f".//{DUBLIN_CORE}{name}") for name in ABOUT}
    except ElementTree.ParseError as error:
        raise FileError(f"{file}: no whole SVG ({error}); delete it and run again") from None
    if not said["title"]:
        raise FileError(f"{file}: an SVG without a title in its metadata; delete it and run again")
    return Picture(svg, said["title"], said["description"] or "", file)


DUBLIN_CORE, ABOUT = "{http://purl.org/dc/elements/1.1/}", ("title", "description")


Part = str | Table | Picture
"""Of a section. Text is Markdown (CommonMark, which has no tables)."""


@dataclass(frozen=True)
class Section:
    heading: str
    parts: Sequence[Part]


def write(path: str | Path, title: str, answer: Sequence[Part], sections: Sequence[Section]) -> None:
    """Write a page, whole or not at all: the answer, links to the sections, and these. Same input, same bytes."""
    write_text(path, html(title, answer, sections))


def html(title: str, answer: Sequence[Part], sections: Sequence[Section], limit: int = LIMIT) -> str:
    """The page's text, of up to ``limit`` bytes as far as linking pictures can make it so."""
    parts = [*answer, *(part for section in sections for part in section.parts)]
    pictures = [part for part in parts if isinstance(part, Picture)]
    linked = {i for i, picture in enumerate(pictures) if picture.file}
    room = limit - len(_page(title, answer, sections, linked).encode())
    for i in sorted(linked):
        if (size := len(_embedded(pictures[i]))) <= room:
            linked, room = linked - {i}, room - size
    return _page(title, answer, sections, linked)


def _page(title: str, answer: Sequence[Part], sections: Sequence[Section], linked: set[int]) -> str:
    """``linked`` are the places of those pictures, among all of them, that are links."""
    places = [f"s{number}" for number, _ in enumerate(sections, 1)]
    contents = "".join(
        f'<li><a href="#{place}">{escape(section.heading)}</a></li>\n'
        for place, section in zip(places, sections, strict=True)
    )
    number = 0

    def parts(of: Sequence[Part]) -> str:
        nonlocal number
        rendered = []
        for part in of:
            if isinstance(part, Picture):
                rendered.append(_picture(part, number in linked))
                number += 1
            else:
                rendered.append(_table(part) if isinstance(part, Table) else _markdown(part))
        return "".join(rendered)

    body = f"<h1>{escape(title)}</h1>\n{_notice(len(linked))}<div class=answer>\n{parts(answer)}</div>\n"
    body += f'<nav aria-label="Contents"><ul>\n{contents}</ul></nav>\n' if sections else ""
    for place, section in zip(places, sections, strict=True):
        body += f"<section id={place}>\n<h2>{escape(section.heading)}</h2>\n{parts(section.parts)}</section>\n"
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
    return f'<!doctype html>\n<html lang="en">\n{head}<main>\n{body}</main>\n<script>{SCRIPT}</script>\n</html>\n'


def _notice(linked: int) -> str:
    if not linked:
        return ""
    pictures = "1 picture is" if linked == 1 else f"{linked} pictures are"
    return f"<p class=notice>{pictures} linked and not shown, to keep this page small: their files lie beside it.</p>\n"


def _markdown(text: str) -> str:
    return MarkdownIt("commonmark", {"html": False}).render(text)


def _picture(picture: Picture, linked: bool) -> str:
    title, caption = escape(picture.title), f"<p>{escape(picture.caption)}</p>" if picture.caption else ""
    if linked:
        return f'<figure><p><a href="{quote(picture.file)}">{title}</a></p>{caption}</figure>\n'
    image = f'<img alt="{title}" src="{_embedded(picture)}">'
    shown = f'<div class=box tabindex=0 role=region aria-label="{title}">{image}</div>'
    return f"<figure><h3>{title}</h3>{shown}<figcaption>{caption}</figcaption></figure>\n"


def _embedded(picture: Picture) -> str:
    # An image keeps its ids and styles to itself, so that no two pictures meet.
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.svg.encode()).decode()}"


def _table(table: Table) -> str:
    numbers = [_of_numbers(table.frame.iloc[:, i]) for i in range(table.frame.shape[1])]
    kinds = [" class=n" if number else "" for number in numbers]
    head = "".join(f"<th scope=col{k}>{escape(str(c))}" for k, c in zip(kinds, table.frame.columns, strict=True))
    rows = []
    for first, *others in table.frame.itertuples(index=False, name=None):
        cells = "".join(f"<td{kind}>{_cell(value)}" for kind, value in zip(kinds[1:], others, strict=True))
        rows.append(f"<tr><th scope=row{kinds[0]}>{_cell(first)}{cells}\n")
    long = " data-filter" if len(rows) > FEW else ""
    title = f"<h3>{escape(table.title)}</h3>\n" if table.title else ""
    name = escape(table.title or ", ".join(map(str, table.frame.columns)))
    return (
        f'{title}{_markdown(table.text)}<div class=box tabindex=0 role=region aria-label="{name}"><table{long}>\n'
        f"<thead><tr>{head}</thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>\n"
    )


def _cell(value: Any) -> str:
    if isinstance(value, Link):
        return f'<a href="{quote(value.to)}">{escape(value.text)}</a>'
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        value = f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    first, *further = str(value).split("\n")
    return escape(first) + "".join(f"<small>{escape(line)}</small>" for line in further)


NUMBER = re.compile(r"[-+−]?\d*\.?\d+(?:e-\d+)?(?=$|[\s%(])")
"""What a text begins with that is sorted as a number; the same in `SCRIPT`."""


def _of_numbers(values: pd.Series) -> bool:
    """Whether a column is one of numbers, if need be with words behind or instead of some: it stands on the right."""
    texts = [text for value in values if not isinstance(value, Link | list | tuple) and (text := _cell(value))]
    return any(NUMBER.match(re.sub("<.*", "", text)) for text in texts)


STYLE = """
:root { --line: #ccc; --ink: #111; --soft: #555; --link: #0072B2 }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; overflow-wrap: anywhere }
main { max-width: 82rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .3rem 0 1rem }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 2px solid var(--ink) }
h3 { font-size: 1rem; margin: 1.5rem 0 .3rem }
p, li { max-width: 46rem }
p { margin: .5rem 0 }
pre { white-space: pre-wrap }
a { color: var(--link) }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; list-style: none }
.answer > p:first-child { font-size: 1.15rem; max-width: 52rem }
.notice { border-left: 4px solid #E69F00; padding-left: .7rem }
.box { overflow: auto; max-width: 100%; margin: .5rem 0 }
.box:has(table) { max-height: 85vh }
.box:focus-visible, button:focus-visible, input:focus-visible { outline: 2px solid var(--link); outline-offset: 1px }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; line-height: 1.3;
  font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line);
  white-space: nowrap; background: #fff }
tbody th { font-weight: 600; position: sticky; left: 0 }
thead th { position: sticky; top: 0; z-index: 1; vertical-align: bottom; border-bottom: 2px solid var(--ink);
  white-space: normal; overflow-wrap: normal }
thead th:first-child { left: 0; z-index: 2 }
.n { text-align: right }
td small, th small { display: block; color: var(--soft); font-weight: 400 }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit }
th button::after { content: "\\a0\\2195"; color: #888 }
th[aria-sort=ascending] button::after { content: "\\a0\\2191"; color: var(--ink) }
th[aria-sort=descending] button::after { content: "\\a0\\2193"; color: var(--ink) }
.filter { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: baseline; font-size: .85rem }
.filter input { font: inherit; font-size: 1rem; width: 14rem; max-width: 100%; padding: .1rem .4rem }
figure { margin: 1rem 0 }
figure img { display: block; width: 100%; min-width: 34rem; max-width: 60rem; height: auto }
figcaption p { color: var(--soft); font-size: .85rem; max-width: 60rem }
@media (max-width: 40rem) { tbody th { white-space: normal; min-width: 7rem; max-width: 9rem } }
@media print {
  body { font-size: 10pt } .box, .box:has(table) { overflow: visible; max-height: none } .filter, nav { display: none }
  th, td { white-space: normal; padding: .1rem .3rem } th button::after { content: "" } thead th { position: static }
  figure img { min-width: 0 } figure, tr { break-inside: avoid }
}
"""

SCRIPT = """
"use strict";
const first = cell => cell.firstChild ? cell.firstChild.textContent.trim() : "";
const number = text => {
  const found = text.match(/^[-+\\u2212]?\\d*\\.?\\d+(?:e-\\d+)?(?=$|[\\s%(])/);
  return found ? parseFloat(found[0].replace("\\u2212", "-")) : NaN;
};
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      const rows = [...body.rows].map(row => ({ row, text: first(row.cells[column]) }));
      const numbers = rows.some(({ text }) => !isNaN(number(text)));
      rows.forEach(r => { r.last = numbers ? isNaN(number(r.text)) : !r.text; });
      rows.sort((a, b) => a.last - b.last || (up ? 1 : -1) * (numbers && !a.last ? number(a.text) - number(b.text)
        : a.text.localeCompare(b.text, "en", { numeric: true })));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows.map(r => r.row));
    });
  });
  if (!("filter" in table.dataset)) continue;
  const label = document.createElement("label"), input = document.createElement("input");
  const count = document.createElement("span"), bar = document.createElement("div");
  bar.className = "filter";
  input.type = "search";
  count.setAttribute("role", "status");
  label.append("Rows with ", input);
  bar.append(label, count);
  table.parentNode.before(bar);
  const show = () => {
    const words = input.value.toLowerCase().split(/\\s+/);
    let shown = 0;
    for (const row of body.rows) {
      const text = [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${body.rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
}
"""
