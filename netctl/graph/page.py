"""The page: figures, lists and a filter in one file that needs nothing else. Pure."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from controlloop import __version__
from controlloop.printable import escaped
from netctl.graph.figures.svg import WIDTH, Figure
from netctl.graph.picture import figures, headline, outcome, summary

Document = Mapping[str, Any]


def page(document: Document, template: str, style: str, script: str) -> str:
    """`template`, `style` and `script` are files of this package, and trusted; the document is not."""
    word, look = outcome(document)
    parts = {
        "csp": policy(style, script),
        "version": __version__,
        "title": text(headline(document)),
        "summary": text(summary(document)),
        "verdict": text(word),
        "verdict_class": look,
        "figures": "\n".join(map(section, figures(document))),
        "style": style,
        "script": script,
        "document": data(document),
    }
    # In one pass: what a part brings in is not looked at again.
    return re.sub(r"@([a-z_]+)@", lambda name: parts[name[1]], template)


def policy(style: str, script: str) -> str:
    """Hashes and not 'unsafe-inline', under which a script that got in would run."""
    hashes = {
        f"{kind}-src": base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for kind, content in (("style", style), ("script", script))
    }
    allowed = "; ".join(f"{kind} 'sha256-{digest}'" for kind, digest in hashes.items())
    return f"default-src 'none'; {allowed}; img-src data:; base-uri 'none'; form-action 'none'"


def data(document: Document) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")


def text(foreign: str) -> str:
    return escape(escaped(foreign))


def section(figure: Figure) -> str:
    head = f'<section id="{figure.name}"><h2>{text(figure.title)}</h2><p>{text(figure.note)}</p>'
    drawing = f'<svg viewBox="0 0 {WIDTH} {figure.height:.0f}" role="group" aria-label="{text(figure.title)}">'
    return f"{head}{drawing}{figure.body}</svg></section>"
