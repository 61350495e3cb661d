"""Markdown as a web page that needs no other file."""

from html import escape

from markdown_it import MarkdownIt

STYLE = """
body { font: 14px/1.45 sans-serif; margin: 1.5em; color: #111; background: #fff }
p { max-width: 48em }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums }
th, td { padding: .2em .5em; border-bottom: 1px solid #ccc; text-align: left; vertical-align: bottom }
td { white-space: nowrap }
th { border-bottom: 2px solid #111 }
"""


def page(markdown: str) -> str:
    """HTML of a text that begins with a heading, which also names the page; tables as GitHub has them."""
    title = markdown.partition("\n")[0].lstrip("# ")
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}</html>\n'
