"""A model that is asked where the rules find no right answer, and what of its word counts."""

from typing import Annotated, Literal

from msgspec import Meta

from apriel_mcore.config.schema.fields import Natural, NonNegative, Positive, PositiveFloat, Section, Url


class NoModelJudge(Section, frozen=True, kw_only=True, tag_field="kind", tag="off"):
    """The rules have the last word."""


class EndpointJudge(Section, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """A model at an OpenAI-compatible endpoint, asked after the rules (General-Reasoner, arXiv 2505.14652).

    It can turn a rule's no into a yes, never a yes into a no.
    """

    url: Url
    """Up to and with the version, as http://HOST:8000/v1."""
    model: str
    domains: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Whose answers it is asked about; their verifiers must be `math` or `text`."""
    ask_when: Annotated[tuple[Literal["wrong", "unparsable"], ...], Meta(min_length=1)] = (
        "wrong",
        "unparsable",
    )
    """The rules' verdicts that it is asked about. An answer that is missing is never shown to it."""
    reply: Literal["reasoned", "json"] = "reasoned"
    """reasoned: it may think, and its last line decides; json: the endpoint holds it to a JSON schema."""
    token_file: str = ""
    """A file with the endpoint's key; empty: what APRIEL_JUDGE_TOKEN holds, or none is sent."""
    requests: Positive = 32
    """Sent at once; the endpoint batches them, further ones wait here."""
    timeout_s: PositiveFloat = 60.0
    """For one request."""
    attempts: Positive = 4
    """Requests for one question until there is no verdict: its whole group is then asked again."""
    backoff_s: NonNegative = 1.0
    """Pause after the first failed request, doubled after each; the endpoint's own Retry-After is longer."""
    start_timeout_s: PositiveFloat = 600.0
    """How long the endpoint may take to come up."""
    max_tokens: Positive = 2048
    temperature: NonNegative = 0.0
    answer_chars: Positive = 500
    """A longer answer is not shown: the rules' verdict stands."""
    question_chars: Positive = 20_000
    """Of the question, its end is shown."""
    cache: Natural = 100_000
    """Decisions that are remembered, by content."""
