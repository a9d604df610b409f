"""Which template sets are there? Each file yields items for one domain, from a few lines of grammar."""

from collections.abc import Callable

from apriel_mcore.config.schema import TemplateSource
from apriel_mcore.data.item import Item
from apriel_mcore.data.templates import calls, constraints, functions, sums
from apriel_mcore.errors import InputError

TEMPLATES: dict[str, Callable[[TemplateSource], list[Item]]] = {
    "sums": sums.items,
    "functions": functions.items,
    "constraints": constraints.items,
    "calls": calls.items,
}


def items(source: TemplateSource) -> list[Item]:
    """Exactly `source.size` items, the same for the same source.

    InputError for an unknown template, or more items than it can make.
    """
    if source.name not in TEMPLATES:
        raise InputError(f"name = {source.name!r} is not a template; known: {', '.join(TEMPLATES)}")
    return TEMPLATES[source.name](source)
