"""A real vLLM server as the model judge: it keeps to a JSON schema, and nonsense decides nothing."""

from typing import Any

import pytest

from apriel_mcore.config.schema import EndpointJudge
from apriel_mcore.errors import InputError, NoOpinion
from apriel_mcore.verify.endpoint import Endpoint
from apriel_mcore.verify.opinion import Dispute

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("server")]

ASKED = Dispute("What is 6 + 6?", "12", "a dozen")


def judge(live_pool: Any, **settings: Any) -> EndpointJudge:
    defaults = {"model": "policy", "domains": ("math",), "max_tokens": 64, "start_timeout_s": 5.0}
    return EndpointJudge(url=f"{live_pool.process.url}/v1", **(defaults | settings))


def test_a_model_of_random_weights_still_decides_in_json(live_pool: Any) -> None:
    async def scenario() -> None:
        # A schema allows white space without end, which greedy random weights may love.
        async with Endpoint(
            judge(live_pool, reply="json", temperature=1.0), token=live_pool.process.token
        ) as endpoint:
            for _ in range(20):
                first = await endpoint.decide(ASKED)
                if first != "unclear":
                    break
            assert first in ("yes", "no")
            num_requests = endpoint.num_requests
            assert await endpoint.decide(ASKED) == first
            assert endpoint.num_requests == num_requests

    live_pool.run(scenario())


def test_its_free_words_decide_nothing(live_pool: Any) -> None:
    async def scenario() -> None:
        async with Endpoint(judge(live_pool), token=live_pool.process.token) as endpoint:
            assert await endpoint.decide(ASKED) == "unclear"  # cut off at 64 tokens, and no decision in them

    live_pool.run(scenario())


def test_the_servers_own_refusals(live_pool: Any) -> None:
    async def scenario() -> None:
        async with Endpoint(judge(live_pool, model="another"), token=live_pool.process.token) as endpoint:
            with pytest.raises(InputError, match=r"HTTP 404.*model_judge\.model"):
                await endpoint.probe()
        async with Endpoint(judge(live_pool), token=live_pool.process.token) as endpoint:
            with pytest.raises(NoOpinion, match="HTTP 400"):
                await endpoint.decide(Dispute("why? " * 2000, "12", "a dozen"))

    live_pool.run(scenario())
