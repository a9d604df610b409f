"""One real vLLM server, on a CPU or a GPU: what it answers, how it takes weights, and how it is replaced."""

import asyncio
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from apriel_mcore.rollout.client import ServerFailed, VllmClient
from apriel_mcore.seams import Sampling, arena_offer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("server")]

TEXT_T = tuple(3 + (7 * i) % 250 for i in range(60))
LONG_T = tuple(3 + (11 * i) % 250 for i in range(400))
"""Several KV blocks (128 tokens each), so that a prefix cache has something to give."""


@pytest.fixture(scope="module")
def arenas(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The served weights, and ones a training run away from them."""
    folder = tmp_path_factory.mktemp("arenas")
    weights = load_file(tiny_llama / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    noisy = {
        name: (
            w.float() + 0.02 * w.float().std().nan_to_num(1.0) * torch.randn(w.shape, generator=generator)
        ).to(w.dtype)
        for name, w in weights.items()
    }
    save_file(weights, folder / "old.safetensors")
    save_file(noisy, folder / "new.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "half.safetensors")
    return {path.stem: str(path) for path in folder.iterdir()}


def _largest_gap(a_T: list[float], b_T: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(a_T, b_T, strict=True))


def test_an_answer_has_the_log_probs_it_was_sampled_with(live_pool: Any) -> None:
    for temperature in (1.0, 0.7):
        sampling = Sampling(max_tokens=24, temperature=temperature)
        answer = live_pool.run(live_pool.pool.generate(TEXT_T, sampling))
        assert len(answer.tokens_T) == len(answer.logprobs_T) <= 24
        assert answer.finish in ("stop", "length")
        assert answer.version_first == live_pool.pool.version
        if temperature == 1.0:
            (score_T,) = live_pool.run(live_pool.pool.score(TEXT_T + answer.tokens_T))
            assert _largest_gap(score_T[len(TEXT_T) - 1 :], list(answer.logprobs_T)) < 0.1


def test_an_update_changes_the_answers_and_a_return_restores_them_bit_for_bit(
    live_pool: Any, arenas: dict[str, str]
) -> None:
    pool, run = live_pool.pool, live_pool.run
    (before_T,) = run(pool.score(TEXT_T))
    (ack,) = run(pool.update_weights(arena_offer(arenas["new"], 1)))
    (changed_T,) = run(pool.score(TEXT_T))
    (again,) = run(pool.update_weights(arena_offer(arenas["old"], 2)))
    (after_T,) = run(pool.score(TEXT_T))
    assert _largest_gap(before_T, changed_T) > 0.05
    assert after_T == before_T
    (read,), (again_read,) = ack.read_R, again.read_R
    assert (read.num_tensors, again.version, pool.version) == (20, 2, 2)
    assert read.num_bytes == again_read.num_bytes == os.path.getsize(arenas["old"]) - _header(arenas["old"])
    assert read.digest != again_read.digest


def _header(path: str) -> int:
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def test_half_a_fused_matrix_is_refused_and_leaves_the_model_untouched(
    live_pool: Any, arenas: dict[str, str]
) -> None:
    async def scenario() -> None:
        (before_T,) = await live_pool.pool.score(TEXT_T)
        client = VllmClient(live_pool.process.url, token=live_pool.process.token)
        with pytest.raises(ServerFailed, match=r"1 tensors differ.*layers\.1\.mlp\.up_proj"):
            await client.take(arena_offer(arenas["half"], 9), name="server-0")
        await client.close()
        assert await live_pool.pool.score(TEXT_T) == [before_T]

    live_pool.run(scenario())


def test_a_prompt_asked_again_after_an_update_never_reads_old_kv(
    live_pool: Any, arenas: dict[str, str]
) -> None:
    async def scenario() -> None:
        pool, one = live_pool.pool, Sampling(max_tokens=1, temperature=1.0)
        client = VllmClient(live_pool.process.url, token=live_pool.process.token)
        await pool.update_weights(arena_offer(arenas["old"], 3))
        await pool.generate(LONG_T, one)
        await client.complete(LONG_T, one, salt="shared")
        await pool.update_weights(arena_offer(arenas["new"], 4))
        fresh = [await pool.generate(LONG_T, one) for _ in range(8)]
        stale = [await client.complete(LONG_T, one, salt="shared") for _ in range(8)]

        async def error(answers: Sequence[Any]) -> float:
            """Of several draws, because the two weights may agree about any one token."""
            true = [(await pool.score(LONG_T + answer.tokens_T))[0][-1] for answer in answers]
            return max(abs(answer.logprobs_T[0] - t) for answer, t in zip(answers, true, strict=True))

        assert await error(fresh) < 0.01
        assert await error(stale) > 0.01  # without the salt the old KV is read
        await client.close()

    live_pool.run(scenario())


def test_requests_in_flight_survive_updates_with_and_without_their_kv(
    live_pool: Any, arenas: dict[str, str]
) -> None:
    async def scenario() -> None:
        pool = live_pool.pool
        client = VllmClient(live_pool.process.url, token=live_pool.process.token)
        sampling = Sampling(max_tokens=800, temperature=1.0)
        version = pool.version
        tasks = [asyncio.create_task(pool.generate(TEXT_T, sampling)) for _ in range(16)]
        await asyncio.sleep(0.3)
        await pool.update_weights(arena_offer(arenas["old"], version + 1))
        await client.recompute_kv()
        answers = await asyncio.gather(*tasks)
        await client.close()
        assert {answer.version_first for answer in answers} == {version}
        # A busy host may deliver them in one burst with the update's own answer, and then in either order.
        assert {answer.version_last for answer in answers} <= {version, version + 1}
        assert (await pool.generate(TEXT_T, sampling)).version_first == version + 1

    live_pool.run(scenario())


@pytest.mark.parametrize("victim", ["vllm.entrypoints", "VLLM::EngineCore"])
def test_a_killed_process_is_replaced_with_the_right_weights_and_leaves_nothing(
    live_pool: Any, arenas: dict[str, str], victim: str
) -> None:
    async def scenario() -> None:
        pool = live_pool.pool
        await pool.update_weights(arena_offer(arenas["new"], pool.version + 1))
        (before_T,) = await pool.score(TEXT_T)
        family = _family(live_pool.process.pid)
        assert len(family) >= 2  # the API server and the engine; on a CPU also a worker
        segments = _segments(family)
        sampling = Sampling(max_tokens=300, temperature=1.0)
        tasks = [asyncio.create_task(pool.generate(TEXT_T, sampling)) for _ in range(4)]
        await asyncio.sleep(0.3)
        os.kill(next(pid for pid, name in family.items() if victim in name), signal.SIGKILL)
        answers = await asyncio.gather(*tasks)
        assert len(answers) == 4
        assert await pool.score(TEXT_T) == [before_T]
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
        assert not segments & set(os.listdir("/dev/shm"))

    live_pool.run(scenario())


def _segments(family: dict[int, str]) -> set[str]:
    """Shared memory that these processes have mapped."""
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in family)
    return set(re.findall(r"/dev/shm/(psm_\w+)", maps))


def _family(guard: int) -> dict[int, str]:
    """Processes below the guard, with their command lines."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{guard}/task/{guard}/children").read_text().split():
        found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        found |= _family(int(child))
    return found
