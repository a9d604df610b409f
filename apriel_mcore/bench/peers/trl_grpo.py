"""TRL's GRPOTrainer on the prompts of a file; whoever started this judges the answers.

    python trl_grpo.py SETTINGS.json      in the environment of requirements/peers.txt, without apriel_mcore

    stdout  {"event": "start"}, {"event": "judge", "rows": [...], "tokens": [[...]]}, {"event": "step"}, "end"
    stdin   to each `judge`: the rewards of its answers, in their order

A row is the number of an answer's prompt: its line in the file. What libraries print goes to stderr.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO


def main() -> None:
    """Train until the wall time or the steps of the settings are used up."""
    settings: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    talk = Talk()
    if settings["grpo"]["use_vllm"]:
        _ready_vllm_for_cpu()
    trainer = _trainer(settings, talk)
    talk.tell(event="start")
    trainer.train()
    talk.tell(event="end")


class Talk:
    """JSON lines with the process that started this one."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, **message: Any) -> None:
        """One line."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def rewards(self, rows: list[int], tokens: list[list[int]]) -> list[float]:
        """What the answers to these prompts are worth."""
        self.tell(event="judge", rows=rows, tokens=tokens)
        return json.loads(sys.stdin.readline())


def _trainer(settings: dict[str, Any], talk: Talk) -> Any:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

    deadline_s = settings["seconds"]

    class Steps(TrainerCallback):
        """Tells of steps, and ends the training after the first one beyond the wall time."""

        def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
            """The clock starts."""
            self.began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """A step is done."""
            talk.tell(event="step")
            control.should_training_stop |= time.monotonic() - self.began > deadline_s

    def reward(completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float]:
        return talk.rewards(row, completion_ids)

    with Path(settings["prompts"]).open(encoding="utf-8") as lines:
        prompts = [json.loads(line) for line in lines]
    return GRPOTrainer(
        model=settings["model"],
        reward_funcs=reward,
        args=GRPOConfig(**settings["grpo"]),
        train_dataset=Dataset.from_dict({"prompt": prompts, "row": list(range(len(prompts)))}),
        callbacks=[Steps()],
    )


def _ready_vllm_for_cpu() -> None:
    """What TRL has no settings for: weights that stay where TRL updates them (on a CPU vLLM packs them for
    oneDNN and drops the originals), no minutes of compilation, and blocks that short prompts can share."""
    import vllm
    from vllm import _custom_ops

    _custom_ops._supports_onednn = False
    vllm.LLM = functools.partial(vllm.LLM, enforce_eager=True, block_size=32)


if __name__ == "__main__":
    main()
