"""The page in a real browser: on a phone and on a desk, sorted and filtered, without a word on the console."""

import pandas as pd
import pytest
from browser import check, look, needs_chromium

from miaprune.report import page
from miaprune.report.page import Link, Picture, Section, Table

pytestmark = needs_chromium

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="500" height="300"><circle r="99"/></svg>'
LONG = "l1_structured_of_my_lab_0.95/adversarial_regularisation_0.125/shadows_l1_structured_0.95"
VALUES = ["9 (rmia)", "-1.5\n-2 to -1", "failed", "10", "+0.25", None, "−3", "2.5e-05 %", "1e3 no number"]
FRAME = pd.DataFrame(
    {
        "setting": [LONG, *(f"l1_{i}" for i in range(10, 2, -1))],
        "difference": VALUES,
        "seeds": [[Link(str(seed), f"seed_{seed}/x.json") for seed in range(7, 15)]] * 9,
        **{f"attack_{i}": ["65.1\n60.0 to 70.2"] * 9 for i in range(15)},
    }
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    text = f"A sentence with {'_'.join(['a_long_name'] * 20)} in it, and `{'x' * 200}`.\n\n    {'y' * 200}"
    parts = [text, Table(FRAME, "Every setting", text), Picture(SVG, LONG, text), f"## {LONG}"]
    page.write(path, f"What does {LONG} do?", [text, Table(FRAME.head(3))], [Section(LONG, parts), Section("B", [])])
    return path


SORT = """
const [few, table] = document.querySelectorAll("table");
const buttons = [...table.querySelectorAll("thead button")];
const shown = () => [...table.tBodies[0].rows].filter(row => !row.hidden);
const column = i => shown().map(row => row.cells[i].firstChild?.textContent ?? "");
const sorts = () => [...table.querySelectorAll("th[aria-sort]")].map(th => [th.cellIndex, th.ariaSort]);
seen.orders = [column(1)];
for (const i of [1, 1, 0]) { buttons[i].click(); seen.orders.push(column(i), sorts()); }
buttons[3].focus();
seen.focused = document.activeElement === buttons[3];
const input = document.querySelector("input");
input.value = "L1_ 2.5";
input.dispatchEvent(new Event("input"));
seen.kept = column(0);
seen.status = document.querySelector("[role=status]").textContent;
seen.inputs = document.querySelectorAll("input").length;
"""


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_overflows_and_nothing_is_loaded(written, width):
    assert "seed_14/x.json" in check(written, width)["links"]


def test_tables_are_sorted_and_filtered(written):
    seen = look(written, 1400, SORT)
    first, up, sorted_up, down, sorted_down, names, _ = seen["orders"]
    assert first == ["9 (rmia)", "-1.5", "failed", "10", "+0.25", "", "−3", "2.5e-05 %", "1e3 no number"]
    numbers, words = ["−3", "-1.5", "2.5e-05 %", "+0.25", "9 (rmia)", "10"], {"failed", "", "1e3 no number"}
    assert up[:6] == numbers and set(up[6:]) == words, "what is no number comes last"
    assert down[:6] == numbers[::-1] and set(down[6:]) == words
    assert (sorted_up, sorted_down) == ([[1, "ascending"]], [[1, "descending"]])
    assert names == [*(f"l1_{i}" for i in range(3, 11)), LONG], "numbers in names by their size"
    assert seen["focused"]
    assert seen["kept"] == ["l1_4"] and seen["status"] == "1 of 9 rows"
    assert seen["inputs"] == 1, "a few rows need no filter"


def test_a_broken_page_is_found_out(written, tmp_path):
    """The checks can fail: a wide picture, an error, a dead link and a picture from elsewhere are all seen."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        written.read_text()
        + "<div style='width: 2000px'>wide</div><a href='#nowhere'>x</a><img src='none.png' alt='none'>"
        + "<script>no_such_function()</script>"
    )
    seen = look(bad, 400)
    assert seen["scrolls_to"] >= 2000 and seen["sticks_out"] and seen["broken"] == ["none"]
    assert seen["dead"] == ["nowhere"] and any("no_such_function" in line for line in seen["console"])
    assert seen["loaded"] == ["none.png"]
