"""Real Megatron ranks: what they publish, before and after a step, is the model that they compute with.

HF folder -> learner of every rank -> arena: bit-equal. One optimizer step -> arena -> transformers:
the log-probs of the ranks.
"""

import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from apriel_mcore.bench.ranks import run_ranks
from apriel_mcore.bridge.arena_transport import ArenaTransport, share_arenas
from apriel_mcore.bridge.plan import Coordinates, make_plan
from apriel_mcore.bridge.publish import Probe, VersionPublisher
from apriel_mcore.bridge.quantise import QuantisedTrainer
from apriel_mcore.bridge.receipt import read, summarize
from apriel_mcore.bridge.scales import scales_for, with_scales
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.bridge.stream import Route
from apriel_mcore.bridge.stream_transport import Place, StreamTransport
from apriel_mcore.config.schema.publish import Weights
from apriel_mcore.errors import BridgeError
from apriel_mcore.seams import Ack, Offer
from tests.mcore.llama import (
    LOSS,
    SHAPE,
    batch_of,
    hf_model,
    reference_logprobs,
    samples_of,
    train_section,
)

pytestmark = pytest.mark.engine

TEXT = (5, 9, 3, 77, 100, 4, 2, 50, 51)
LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor2_pipeline2": {"tensor": 2, "pipeline": 2},
    "virtual_pipeline2": {"pipeline": 2, "virtual_pipeline": 2},
    "tensor2_context2": {"tensor": 2, "context": 2},
    "overlap": {  # parameters are stale after a step until they are synchronised
        "data": 2,
        "distributed_optimizer": True,
        "overlap_grad_reduce": True,
        "overlap_param_gather": True,
    },
}


class CopyingServer:
    """Keeps every arena it is given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def muster(self) -> list[str]:
        return ["copy/1"]

    def receive(self, offer: Offer) -> None:
        raise AssertionError("an arena needs no receiving")

    def update(self, offer: Offer) -> Future[list[Ack]]:
        kept = self._folder / f"version{offer.version}.safetensors"
        shutil.copyfile(offer.arguments["path"], kept)
        sent = summarize(kept.read_bytes(), where=str(kept))
        answer: Future[list[Ack]] = Future()
        answer.set_result([Ack(server="copy", version=offer.version, seconds=0.0, read_R=(sent,))])
        return answer

    def score(self, tokens_T: Sequence[int]) -> list[list[float]]:
        return [[-1.0] * (len(tokens_T) - 1)]


def publish_twice(
    shape: ModelShape, layout: dict[str, Any], weights: Weights, folder: Path
) -> list[list[float]]:
    """Runs on every rank: log-probs of TEXT at version 0 and 1."""
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.learner import MegatronLearner

    section = train_section(**layout)
    ranks = parallel.start(section, seed=3, timeout_s=60)
    learner = MegatronLearner(shape, section, LOSS, ranks=ranks)
    learner.load_hf(folder)
    scales = scales_for(shape, weights)
    plan = with_scales(make_plan(shape, section.parallel, learner.spec), scales)
    servers = CopyingServer(folder)
    transport = ArenaTransport(
        plan=plan,
        rank=learner.coordinates,
        servers=servers,
        ranks=ranks,
        arenas=share_arenas(ranks, folder, "arena", plan.tensors, plan.dtypes("float32")),
    )
    publisher = VersionPublisher(
        trainer=QuantisedTrainer(learner, plan, scales, ranks) if scales else learner,
        plan=plan,
        transport=transport,
        servers=servers,
        ranks=ranks,
        probe=Probe(tokens_T=TEXT, bound=100.0),
        log=folder / "receipts.jsonl",
    )
    publisher.publish(0)
    logprobs = [learner.logprobs(TEXT)]
    batch = batch_of(samples_of(0), num_data_ranks=learner.num_data_ranks, pad_multiple=learner.pad_multiple)
    learner.train_step(batch)
    publisher.publish(1)
    logprobs.append(learner.logprobs(TEXT))
    publisher.close()
    parallel.stop()
    return logprobs


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_weights_are_the_weights_that_train(layout: str, tied: bool, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    shape = msgspec.structs.replace(SHAPE, tied=tied)
    model = hf_model(shape)
    weights = {
        name: weight.clone()
        for name, weight in model.state_dict().items()
        if not (tied and "lm_head" in name)
    }
    save_file(weights, tmp_path / "model.safetensors")
    parallel = train_section(**LAYOUTS[layout]).parallel
    logprobs_R = run_ranks(
        parallel.world_size, publish_twice, shape, LAYOUTS[layout], "as_trained", tmp_path, folder=tmp_path
    )

    before, after = (load_file(tmp_path / f"version{version}.safetensors") for version in (0, 1))
    assert before.keys() == after.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(before[name], weight), name
        assert not torch.equal(after[name], weight), f"{name} did not move"
    missing, unexpected = model.load_state_dict(after, strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if tied else [])
    with torch.no_grad():
        expected = reference_logprobs(model, list(TEXT)).tolist()
    for logprobs in logprobs_R:
        assert logprobs[1] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert logprobs[1] != pytest.approx(logprobs[0], abs=1e-5)
    assert [receipt.version for receipt in read(tmp_path / "receipts.jsonl")] == [0, 1]


def test_megatron_ranks_quantise_as_one_rank_does(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    digests: list[list[str]] = []
    for number, layout in enumerate(({}, LAYOUTS["tensor2_pipeline2"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(
            {name: weight.clone() for name, weight in hf_model(SHAPE).state_dict().items()},
            folder / "model.safetensors",
        )
        world = train_section(**layout).parallel.world_size
        run_ranks(world, publish_twice, SHAPE, layout, "fp8_block", folder, folder=folder)
        receipts = read(folder / "receipts.jsonl")
        assert [len(receipt.quantised) for receipt in receipts] == [7, 7]
        assert receipts[0].digest != receipts[1].digest
        digests.append([receipt.digest for receipt in receipts])
    assert digests[0][0] == digests[1][0]  # version 1 differs in the order of float32 additions


def disagree(folder: Path) -> list[str]:
    """Runs on every rank: the last one has read another model, then another recipe; what each is told."""
    from apriel_mcore.mcore import parallel

    section = train_section(pipeline=3)
    ranks = parallel.start(section, seed=3, timeout_s=60)
    is_other = os.environ["RANK"] == "2"
    ours = msgspec.structs.replace(SHAPE, num_layers=3)
    shape = msgspec.structs.replace(ours, tied=False) if is_other else ours
    plan, other_plan = (make_plan(each, section.parallel, "local") for each in (ours, shape))
    rank = Coordinates(
        tensor_rank=0,
        pipeline_rank=ranks.pipeline,
        data_rank=0,
        context_rank=0,
        chunks=plan.chunks[ranks.pipeline],
    )
    servers = CopyingServer(folder)
    arenas = share_arenas(ranks, folder, "arena", plan.tensors, plan.dtypes("float32"))
    route = Route(
        parallel=section.parallel,
        spec="local",
        num_targets=1,
        dtype="float32",
        weights="as_trained",
        message_elements=2000 if is_other else 1000,
    )
    ways = [
        lambda: ArenaTransport(plan=other_plan, rank=rank, servers=servers, ranks=ranks, arenas=arenas),
        lambda: StreamTransport(
            shape=ours,
            route=route,
            place=Place(host="127.0.0.1", port=0, backend="gloo", timeout_s=20),
            rank=rank,
            servers=servers,
            ranks=ranks,
            device=torch.device("cpu"),
        ),
    ]
    told = []
    for make in ways:
        with pytest.raises(BridgeError) as error:
            make()
        told.append(str(error.value))
    return told


def test_ranks_with_different_plans_are_all_told_which_of_them_differ(tmp_path: Path) -> None:
    told_R = run_ranks(3, disagree, tmp_path, folder=tmp_path)
    assert told_R[0] == told_R[1] == told_R[2]
    for told in told_R[0]:
        assert re.fullmatch(
            r"the ranks would move .* rank 0 by \w{12}, rank 2 by \w{12}: start every .*", told
        )
