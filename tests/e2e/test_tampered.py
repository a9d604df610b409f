"""Weights that are not the trainer's, on a real vLLM server: the receipt, the probe, or a look at the numbers
stops the run."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from apriel_mcore.bridge import shape
from apriel_mcore.bridge.arena_transport import ArenaTransport, share_arenas
from apriel_mcore.bridge.plan import make_plan
from apriel_mcore.bridge.publish import Probe, VersionPublisher
from apriel_mcore.bridge.receipt import read
from apriel_mcore.bridge.tensorfile import contents
from apriel_mcore.config.schema import Parallel
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Ack, Offer
from tests.e2e.test_stream import TEXT_T, Alone, Trainer, hf_logprobs

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("server")]

DOWN = "model.layers.1.mlp.down_proj.weight"
BOUND = 0.06  # what publish.probe_bound = "auto" stands for


class TamperedServers:
    """publish.ServerSide over the real pool; `tamper` comes between a version's digest and the servers."""

    def __init__(self, live_pool: Any) -> None:
        self._live = live_pool
        self.tamper: Callable[[Offer], Offer] = lambda offer: offer
        self.offers: list[Offer] = []

    def muster(self) -> list[str]:
        raise AssertionError("an arena needs no muster")

    def receive(self, offer: Offer) -> None:
        raise AssertionError("an arena needs no receiving")

    def update(self, offer: Offer) -> Future[list[Ack]]:
        self.offers.append(offer)
        answer: Future[list[Ack]] = Future()
        # Without the digests the pool lets it pass, and the receipt is what stands between.
        blind = msgspec.structs.replace(self.tamper(offer), sent_R=())
        answer.set_result(self._live.run(self._live.pool.update_weights(blind)))
        return answer

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return self._live.run(self._live.pool.score(tokens_T))


class TwoFacedTrainer:
    """Computes with one set of weights; `alter` changes what it gives away."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.coordinates = trainer.coordinates
        self.alter: Callable[[dict[str, Tensor]], object] = lambda chunk: None

    def chunks(self) -> list[dict[str, Tensor]]:
        given = {name: weight.clone() for name, weight in self._trainer.chunks()[0].items()}
        self.alter(given)
        return [given]

    def logprobs(self, tokens_T: Sequence[int]) -> list[float]:
        return self._trainer.logprobs(tokens_T)


class Run(NamedTuple):
    """A publisher on the live pool, and the places where its weights can be spoilt."""

    publisher: VersionPublisher
    trainer: TwoFacedTrainer
    servers: TamperedServers
    log: Path
    live: Any

    def publish(self) -> int:
        """The version that was published."""
        version = self.live.pool.version + 1
        self.publisher.publish(version)
        return version

    def refused(self, match: str) -> None:
        """Publishing stops with this message and leaves no receipt."""
        before = self.log.read_bytes()
        with pytest.raises(BridgeError, match=match):
            self.publish()
        assert self.log.read_bytes() == before


@pytest.fixture
def run(live_pool: Any, tiny_llama: Path, tmp_path: Path) -> Iterator[Run]:
    """One version is published already."""
    weights = Trainer(tiny_llama)
    weights.expected_T = hf_logprobs(tiny_llama, load_file(tiny_llama / "model.safetensors"))
    trainer, servers = TwoFacedTrainer(weights), TamperedServers(live_pool)
    plan = make_plan(shape.read(tiny_llama), Parallel(), "local")
    publisher = VersionPublisher(
        trainer=trainer,
        plan=plan,
        transport=ArenaTransport(
            plan=plan,
            rank=weights.coordinates,
            servers=servers,
            ranks=Alone(),
            arenas=share_arenas(Alone(), tmp_path, "run", plan.tensors, plan.dtypes("bfloat16")),
        ),
        servers=servers,
        ranks=Alone(),
        probe=Probe(tokens_T=TEXT_T, bound=BOUND),
        log=tmp_path / "receipts.jsonl",
    )
    started = Run(publisher, trainer, servers, tmp_path / "receipts.jsonl", live_pool)
    started.publish()
    yield started
    servers.tamper, trainer.alter = lambda offer: offer, lambda chunk: None
    started.publish()  # the right weights end the trouble, and are there for the next test
    publisher.close()


def test_one_bit_of_one_tensor_changed_on_the_way_is_told_by_the_receipt(run: Run) -> None:
    def flip(offer: Offer) -> Offer:
        with open(offer.arguments["path"], "r+b") as file, mmap.mmap(file.fileno(), 0) as arena:
            with memoryview(arena) as whole:
                start = contents(whole, where="arena")[DOWN].start
            arena[start] ^= 1
        return offer

    run.servers.tamper = flip
    run.refused(r"server-0 has digest \w{32}, sent was \w{32}")


def test_a_server_that_is_given_the_version_before_is_told_by_the_receipt(run: Run) -> None:
    (first,) = run.servers.offers
    run.trainer.alter = lambda chunk: chunk["decoder.final_layernorm.weight"].mul_(2)
    run.servers.tamper = lambda offer: msgspec.structs.replace(
        offer, arguments={"path": first.arguments["path"]}
    )
    run.refused(r"server-0 has digest \w{32}, sent was \w{32}")


def test_a_tensor_that_was_wrong_before_its_digest_is_told_by_the_probe(run: Run) -> None:
    def mix_up(chunk: dict[str, Tensor]) -> None:
        chunk["decoder.layers.1.mlp.linear_fc2.weight"] = chunk["decoder.layers.0.mlp.linear_fc2.weight"]

    run.trainer.alter = mix_up
    run.refused(f"publish.probe_bound = {BOUND}")


def test_a_weight_that_is_not_a_number_never_reaches_a_server(run: Run) -> None:
    def spoil(chunk: dict[str, Tensor]) -> None:
        chunk["decoder.layers.1.mlp.linear_fc2.weight"][3, 5] = torch.nan

    version, scores = run.live.pool.version, run.servers.score(TEXT_T)
    run.trainer.alter = spoil
    run.refused(f"was not sent, its weights are not finite: {DOWN};")
    assert len(run.servers.offers) == 1
    assert (run.live.pool.version, run.servers.score(TEXT_T)) == (version, scores)


def test_the_right_weights_leave_a_receipt_with_a_probe_well_within_the_bound(run: Run) -> None:
    version = run.publish()
    receipts = read(run.log)
    assert (len(receipts), receipts[-1].version) == (2, version)
    assert receipts[-1].probe_mean_abs_diff < BOUND / 2
