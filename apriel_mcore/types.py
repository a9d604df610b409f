"""The nouns: a Problem is asked, a Rollout answers, a Group is the siblings of one problem.

    Problem -> Rollout x G -> Group -> Sample -> Batch -> StepStats

Shape suffixes: _T tokens, _G rollouts of a group. `version` is the number of optimizer steps behind
a set of weights; `lag` is the version being trained minus the version that answered.
"""

from typing import Any, Literal

import msgspec

Status = Literal["correct", "partial", "wrong", "no_answer", "unparsable", "timeout"]
Finish = Literal["stop", "length"]
Outcome = Literal["kept", "filtered", "failed"]


class Message(msgspec.Struct, gc=False, frozen=True):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Problem(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A question with a judge.

    `id` is a hash of source and content, never a row position. `reference` is what the verifier
    compares with; it never reaches the policy nor a sandboxed child. `split_key` is the content that
    train and held-out parts must not share (paraphrases of one item have the same key).
    """

    id: str
    domain: str
    source: str
    messages: tuple[Message, ...]
    verifier: str
    reference: dict[str, Any]
    split_key: str
    level: str = ""
    """Difficulty or subject as the data set states it; for reports."""
    prompt_T: tuple[int, ...] = ()
    """Token ids of the rendered messages, filled in once by data/prompts.py."""
    prefill: str = ""
    """Where `prompt_T` ends inside a thought that it opens for the model: that beginning of the answer."""

    def whole(self, completion: str) -> str:
        """What is judged of a completion: the answer with the beginning that stands in the prompt."""
        return self.prefill + completion


class Verdict(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a judge says of one answer. A judge that breaks raises VerifierError instead."""

    score: float
    """In [0, 1]; 1.0 exactly when `success`."""
    success: bool
    status: Status
    detail: str = ""


class Rollout(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One sampled answer: the exact ids the server produced, never re-tokenised text."""

    tokens_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    """log pi_old of each token, from the server that sampled it (natural log)."""
    text: str
    finish: Finish
    version_first: int
    version_last: int
    verdict: Verdict
    seconds: float
    """From the request to the last token."""
    server: str
    reference_logprobs_T: tuple[float, ...] = ()
    """log pi of the reference answer's tokens, put in the place of this rollout's answer; where the domain
    has a reference reward and the rollout an answer (rollout/reference.py)."""
    own_logprobs_T: tuple[float, ...] = ()
    """log pi of this rollout's own answer in that place, where the reference reward compares the two."""

    @property
    def truncated(self) -> bool:
        """The server stopped it at the output budget."""
        return self.finish == "length"


class Group(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The finished siblings of one problem, with at least two rollouts."""

    id: int
    problem: Problem
    rollouts_G: tuple[Rollout, ...]
    version: int
    """Weights version of the oldest token in the group."""
    attempt: int = 0
    temperature: float = 1.0
    """Of the distribution that the rollouts were sampled from, and their log-probs are of."""
    alone_logprobs_T: tuple[float, ...] = ()
    """log pi of the reference answer's tokens without any reasoning, to compare the rollouts' with."""

    @property
    def solve_rate(self) -> float:
        """Share of the rollouts that the judge found right, truncated ones included."""
        return sum(rollout.verdict.success for rollout in self.rollouts_G) / len(self.rollouts_G)


class ShapedReward(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The reward of one rollout, its parts kept apart."""

    task: float
    """Reward table applied to the verdict, and the reference reward where there is one; unshaped."""
    length: float
    """Length penalty LP(l) in [-1, 0] before its difficulty factor."""
    factor: float
    """lambda of the difficulty-aware penalty."""

    @property
    def total(self) -> float:
        """What the advantage is computed from."""
        return self.task + self.factor * self.length


class Sample(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One trainable sequence: a prompt, an answer, and what to make of it."""

    domain: str
    prompt_T: tuple[int, ...]
    response_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    """Behaviour log-probs of the response tokens."""
    advantage: float
    version: int
    temperature: float = 1.0
    """Logits are divided by it, as the server that sampled the answer did."""

    @property
    def num_tokens(self) -> int:
        """Prompt plus response."""
        return len(self.prompt_T) + len(self.response_T)


class Row(msgspec.Struct, frozen=True):
    """Samples that share one packed sequence, by index into `Batch.samples`."""

    sample_ids: tuple[int, ...]
    num_tokens: int
    """With the padding of each sample, or family, to the pad multiple."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One optimizer step, planned identically on every rank.

    `rows[d][m]` is the row that data rank d trains as micro-batch m; every data rank has the same
    number of micro-batches (an empty row contributes nothing and still runs).
    """

    samples: tuple[Sample, ...]
    rows: tuple[tuple[Row, ...], ...]
    num_rollouts: int
    """Bs of the loss: the nominal rollouts of a step, constant even when a group is short."""
    num_response_tokens: int
    """T of the loss: response tokens over all ranks and micro-batches."""
    pad_multiple: int
    """Each sample (family, where prompts are shared) is padded to a multiple of it: 2 x context x tensor with
    sequence parallelism."""
    shared_prompts: bool = False
    """Samples of a row that have one prompt share its tokens (data/families.py)."""


class StepStats(msgspec.Struct, frozen=True, kw_only=True):
    """What one optimizer step measured, already reduced over all ranks."""

    loss: float
    grad_norm: float
    lr: float
    entropy: float
    """Mean over response tokens, nats."""
    clip_fraction: float
    """Share of response tokens whose ratio was clipped; for gspo, tokens of clipped sequences."""
    logprob_abs_diff: float
    """Mean |log pi_trainer - log pi_server| on trained tokens, before the update."""
    kl_rollout_train: float
    """k3 estimate of KL(server || trainer) on trained tokens."""
    tokens_trained: int
    packing_fill: float
    seconds: float
