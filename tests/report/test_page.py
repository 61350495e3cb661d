"""Web pages of Markdown."""

import pandas as pd

from miaprune.report.page import page
from miaprune.report.tables import to_markdown


def test_a_page_has_its_headings_name_and_its_tables():
    table = pd.DataFrame({"l1_structured": [0.5], "other": [None]})
    text = page("# What *a < b* costs\n\nSee.\n\n" + to_markdown(table))
    assert "<title>What *a &lt; b* costs</title>" in text
    assert "<h1>What <em>a &lt; b</em> costs</h1>" in text
    assert "<th>l1_structured</th>" in text and "<td>0.5</td>" in text and "<td></td>" in text


def test_html_in_the_text_is_shown_and_not_obeyed():
    assert "&lt;script&gt;" in page("# A\n\n<script>alert()</script>\n")
