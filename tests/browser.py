"""A page as a browser shows it: headless Chromium, where there is one."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")

SEEN = """
const seen = {
  width: innerWidth,
  scrolls_to: document.documentElement.scrollWidth,
  sticks_out: [...document.body.querySelectorAll("*")].filter(
    e => !e.closest(".box") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 200)),
  loaded: [...document.querySelectorAll("[src], link[href]")].map(e => e.getAttribute("src") ?? e.href).filter(
    from => !from.startsWith("data:")),
  broken: [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt),
  dead: [...document.querySelectorAll("a[href^='#']")].map(a => a.hash.slice(1)).filter(
    id => !document.getElementById(id)),
  links: [...document.querySelectorAll("a:not([href^='#'])")].map(a => decodeURI(a.getAttribute("href"))),
};
"""


def look(path, width, script=""):
    """What a page of this width is like, with what ``script`` adds to ``seen``; and what the console says."""
    copy, frame = (path.with_name(f"{name}_{width}.html") for name in ("looked_at", "frame"))
    seeing = f"addEventListener('load', () => {{{SEEN}{script}window.seen = seen}})"
    copy.write_text(f"{path.read_text()}<script>{seeing}</script>")
    # In a frame, as a window is never narrower than 500 pixels.
    said = "document.body.textContent = JSON.stringify(frames[0].seen)"
    frame.write_text(f'<body onload="{said}"><iframe width={width} height=900 style="border: 0" src="{copy.name}">')
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000", "--dump-dom"]
    command += ["--enable-logging=stderr", "--v=0", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={path.parent / 'profile'}", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    copy.unlink()
    frame.unlink()
    found = re.search(r"<body.*?>(\{.*\})", done.stdout, flags=re.S)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1])) | {"console": re.findall(r"CONSOLE.*", done.stderr)}


def check(path, width, script=""):
    """`look`, and nothing is wrong with what every page is to have right."""
    seen = look(path, width, script)
    assert seen["width"] == width
    for wrong in ("sticks_out", "loaded", "broken", "dead", "console"):
        assert not seen[wrong], f"{wrong}: {seen[wrong]}"
    assert seen["scrolls_to"] <= width
    return seen
