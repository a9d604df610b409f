"""The page's own files, one by one for the live page, all in one for a report.

Modules import each other in one form, `import { a, b } from "./other.js";`, and export in one,
`export function`, `export class` or `export const`: enough to read, and to bundle without a build step.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

_PAGE = files("apriel_mcore.views") / "page"
MODULES = (
    "dom.js",
    "format.js",
    "frames.js",
    "chart.js",
    "heat.js",
    "source.js",
    "overview.js",
    "domains.js",
    "trainer.js",
    "servers.js",
    "heldout.js",
    "group.js",
    "rollouts.js",
    "metrics.js",
    "compare.js",
    "app.js",
)
"""In the order of their imports."""
ASSETS = frozenset((*MODULES, "style.css"))
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)


@cache
def asset(name: str) -> str:
    """Text of one of ASSETS."""
    return (_PAGE / name).read_text(encoding="utf-8")


def index_page() -> str:
    """The page that loads its files one by one."""
    return (
        _head()
        + '<link rel="stylesheet" href="/assets/style.css">'
        + '<script type="module" src="/assets/app.js"></script></head><body></body></html>\n'
    )


def whole_page(title: str, content: str) -> str:
    """The page with everything in it; `content` is JSON for the script. It may load nothing at all."""
    script, style = bundle(), asset("style.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    inert = content.replace("<", "\\u003c")  # no string of a model ends the script element
    return (
        _head(f'<meta http-equiv="Content-Security-Policy" content="{policy}">', title)
        + f"<style>{style}</style></head><body>"
        + f'<script type="application/json" id="content">{inert}</script>'
        + f'<script type="module">{script}</script></body></html>\n'
    )


@cache
def bundle() -> str:
    """All modules as one script: each a function of its own, so that their names do not meet."""
    return "\n".join(_enclosed(name) for name in MODULES)


def _enclosed(name: str) -> str:
    text = asset(name)
    exported = ", ".join(_EXPORT.findall(text))
    text = _IMPORT.sub(lambda found: f"const {found[1]} = {_variable(found[2])};\n", text)
    return f"const {_variable(name)} = (() => {{\n{_EXPORT.sub('', text)}return {{ {exported} }};\n}})();"


def _variable(name: str) -> str:
    return f"module_{name.removesuffix('.js')}"


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _head(extra: str = "", title: str = "apriel") -> str:
    from html import escape

    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>{extra}'
        '<link rel="icon" href="data:,">'
    )
