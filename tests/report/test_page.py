"""Pages in one file: what is in a cell, in a text and in a picture is there, and shown as what it is."""

import re

import pandas as pd
import pytest

from miaprune.files import FileError
from miaprune.report.page import Link, Picture, Section, Table, html, picture, write

SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>{}</text></svg>'


def test_a_page_has_its_title_its_text_and_links_to_its_sections():
    text = html("What a < b costs", ["See *this*."], [Section("One & only", ["* a"])])
    assert "<title>What a &lt; b costs</title>" in text and "<h1>What a &lt; b costs</h1>" in text
    assert "<p>See <em>this</em>.</p>" in text and "<li>a</li>" in text
    assert '<a href="#s1">One &amp; only</a>' in text and "<section id=s1>" in text
    assert "<nav" not in html("t", [], [])


def test_a_page_is_written_whole(tmp_path):
    write(tmp_path / "x/page.html", "Größe", ["text"], [])
    assert (tmp_path / "x/page.html").read_text(encoding="utf-8") == html("Größe", ["text"], [])


@pytest.mark.parametrize(
    ("svg", "message"), [(SVG, "without a title"), ("<svg><g></svg>", "no whole SVG"), ("", "no whole SVG")]
)
def test_a_picture_that_is_none_of_ours_is_refused(svg, message):
    with pytest.raises(FileError, match=f"figures/x.svg: .*{message}.*delete it"):
        picture(svg, "figures/x.svg")


def test_html_is_shown_and_not_obeyed_wherever_it_comes_from():
    bad = "<script>alert()</script>"
    frame = pd.DataFrame({bad: [bad, Link(bad, bad)], "x": [f"1\n{bad}", [Link("a", 'b" c')]]})
    text = html(bad, [bad], [Section(bad, [Table(frame, bad, bad), Picture(SVG, bad, bad, bad)])])
    assert len(re.findall("<script>", text)) == 1, "ours"
    assert 'href="b%22%20c"' in text


def test_cells():
    frame = pd.DataFrame(
        {
            "row": ["a", "b"],
            "measured": ["0.93\n0.90 to 0.95", "failed"],
            "share": [0.123456, 45678.0],
            "count": [None, 5],
            "seeds": [[Link("7", "a/x.json"), Link("8", "seed_8/a/x.json")], None],
        }
    )
    text = html("t", [Table(frame)], [])
    assert "<th scope=row>a<td class=n>0.93<small>0.90 to 0.95</small><td class=n>0.1235<td class=n>" in text
    assert '<td><a href="a/x.json">7</a>, <a href="seed_8/a/x.json">8</a>' in text
    assert "<th scope=row>b<td class=n>failed<td class=n>45678<td class=n>5<td>\n" in text


def test_pictures_beyond_the_limit_are_linked_and_the_page_says_so():
    pictures = [Picture(SVG.format(c * 10_000), f"Title {c}", file=f"figures/{c}.svg") for c in "abc"]
    sections = [Section("A", pictures)]
    whole = html("t", [], sections)
    assert whole.count("data:image/svg") == 3 and "<figure><p>" not in whole and "class=notice" not in whole
    for limit, inside in ((len(whole), 3), (len(whole) - 10_000, 2), (15_000, 0), (0, 0)):
        text = html("t", [], sections, limit)
        assert text.count("data:image/svg") == inside
        assert [f'href="figures/{c}.svg"' in text for c in "abc"] == [i >= inside for i in range(3)]
        assert ("class=notice" in text) == (inside < 3) and len(text) <= max(limit, 7_000)
    assert "1 picture is linked" in html("t", [], sections, len(whole) - 10_000)
    nowhere = [Section("A", [Picture(SVG, "Title")])]
    assert "data:image/svg" in html("t", [], nowhere, 0), "one without a file cannot be linked"
