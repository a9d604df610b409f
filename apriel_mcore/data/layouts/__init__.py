"""How does a row of a published data set become an Item? One reader a layout, one file a domain."""

from collections.abc import Callable
from typing import Any

import msgspec

from apriel_mcore.config.schema import Layout
from apriel_mcore.config.schema import layouts as kinds
from apriel_mcore.data.item import Item, Unusable
from apriel_mcore.data.layouts import choice, code, instruction, logic, math

_READERS: dict[type[Any], Callable[[Any, Any], Item]] = {
    kinds.OpenReasonerZero: math.open_reasoner_zero,
    kinds.MathColumns: math.columns,
    kinds.EurusMath: math.eurus,
    kinds.Taco: code.taco,
    kinds.LiveCodeBench: code.livecodebench,
    kinds.HumanEval: code.human_eval,
    kinds.Mbpp: code.mbpp,
    kinds.CruxEval: code.cruxeval,
    kinds.MultiConstraints: instruction.multi_constraints,
    kinds.IfEval: instruction.ifeval,
    kinds.Intellect3Logic: logic.intellect3,
    kinds.Gpqa: choice.gpqa,
    kinds.MmluPro: choice.mmlu_pro,
}


def item(layout: Layout, row: Any) -> Item:
    """The item of one row; Unusable with the reason when none can be made of it."""
    try:
        return _READERS[type(layout)](layout, row)
    except msgspec.ValidationError as error:
        raise Unusable("other_columns", str(error)) from None
