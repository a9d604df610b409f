"""How are the rows of a published data set written? One variant a format, with the filters it allows.

Reading them is data/layouts; the column names are those of the published files.
"""

from typing import Literal

import msgspec

from apriel_mcore.config.schema.fields import Fraction, Positive, Section


class OpenReasonerZero(Section, frozen=True, kw_only=True, tag_field="kind", tag="open_reasoner_zero"):
    """Two turns: the task in `value` of the first, the gold in `ground_truth.value` of the second."""


class MathColumns(Section, frozen=True, kw_only=True, tag_field="kind", tag="math_columns"):
    """A question and its answer in columns: DeepScaleR, LIMO, GSM8K, MATH, AIME, OpenR1 and their kin."""

    question: str = "problem"
    answer: str = "answer"
    answer_in: Literal["whole", "boxed", "after_hashes"] = "whole"
    r"""whole: the column is the answer; boxed: its last `\boxed{}`; after_hashes: what follows `####`."""
    where: dict[str, str] = msgspec.field(default_factory=dict)
    """Only rows whose column contains this text: AIMO's year is in its `url`."""
    level: str = ""
    """Column with the difficulty or subject, for reports. Empty: none."""
    verifier: Literal["math", "text"] = "math"
    """text: answers are words, which only a model judge can compare with others (WebInstruct-verified)."""
    any_true: str = ""
    """Only rows that have a true value in this list: OpenR1's `correctness_math_verify`. Empty: all rows."""


class EurusMath(Section, frozen=True, kw_only=True, tag_field="kind", tag="eurus_math"):
    """PRIME-RL/Eurus-2-RL-Data: rows of ability `math`, gold in `reward_model.ground_truth`."""


class Taco(Section, frozen=True, kw_only=True, tag_field="kind", tag="taco"):
    """BAAI/TACO and codeparrot/apps: tests as JSON in `input_output`."""

    max_tests: Positive = 15
    skip_difficulties: tuple[str, ...] = ()


class LiveCodeBench(Section, frozen=True, kw_only=True, tag_field="kind", tag="livecodebench"):
    """livecodebench/code_generation_lite: public tests as JSON, private ones packed."""

    max_tests: Positive = 15


class HumanEval(Section, frozen=True, kw_only=True, tag_field="kind", tag="human_eval"):
    """A function's head, its canonical solution and a `check` of asserts."""


class Mbpp(Section, frozen=True, kw_only=True, tag_field="kind", tag="mbpp"):
    """A task and three asserts, of which the prompt shows the first."""


class CruxEval(Section, frozen=True, kw_only=True, tag_field="kind", tag="cruxeval"):
    """A function, an input, and the output to predict."""


class MultiConstraints(Section, frozen=True, kw_only=True, tag_field="kind", tag="multi_constraints"):
    """allenai/IF_multi_constraints_upto5: constraints as a Python literal in `ground_truth`."""


class IfEval(Section, frozen=True, kw_only=True, tag_field="kind", tag="ifeval"):
    """google/IFEval: prompt, instruction_id_list, kwargs."""


class Intellect3Logic(Section, frozen=True, kw_only=True, tag_field="kind", tag="intellect3_logic"):
    """PrimeIntellect/INTELLECT-3-RL, configuration `logic`: a puzzle as JSON in `info`."""

    solve_rate_column: str = "avg@16_qwen3_4b_instruct_2507"
    min_solve_rate: Fraction = 0.0
    max_solve_rate: Fraction = 1.0
    skip_tasks: tuple[str, ...] = (
        "arc_agi",
        "arc_agi_2",
        "buggy_tables",
        "dyck_language",
        "dyck_language_errors",
        "dyck_language_reasoning_errors",
        "gpqa_diamond",
        "bbh",
        "bbeh",
    )
    """Tasks left out: those the reference run skips, and benchmarks."""

    def __post_init__(self) -> None:
        if self.min_solve_rate > self.max_solve_rate:
            raise ValueError(
                f"min_solve_rate = {self.min_solve_rate:g} exceeds max_solve_rate = {self.max_solve_rate:g}"
            )


class Gpqa(Section, frozen=True, kw_only=True, tag_field="kind", tag="gpqa"):
    """Idavidrein/gpqa: a question, the right answer and three wrong ones in columns of their own."""


class MmluPro(Section, frozen=True, kw_only=True, tag_field="kind", tag="mmlu_pro"):
    """TIGER-Lab/MMLU-Pro: a question, up to ten options, and the letter of the right one."""


Layout = (
    OpenReasonerZero
    | MathColumns
    | EurusMath
    | Taco
    | LiveCodeBench
    | HumanEval
    | Mbpp
    | CruxEval
    | MultiConstraints
    | IfEval
    | Intellect3Logic
    | Gpqa
    | MmluPro
)
