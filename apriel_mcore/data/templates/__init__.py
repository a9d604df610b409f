"""Which template sets are there? Each file yields items for one domain, from a few lines of grammar."""

from collections.abc import Callable

from apriel_mcore.config.schema import TemplateName, TemplateSource
from apriel_mcore.data.item import Item
from apriel_mcore.data.templates import calls, constraints, functions, sums

TEMPLATES: dict[TemplateName, Callable[[TemplateSource], list[Item]]] = {
    "sums": sums.items,
    "functions": functions.items,
    "constraints": constraints.items,
    "calls": calls.items,
}


def items(source: TemplateSource) -> list[Item]:
    """Exactly `source.size` items, the same for the same source.

    InputError for more items than the template can make.
    """
    return TEMPLATES[source.name](source)
