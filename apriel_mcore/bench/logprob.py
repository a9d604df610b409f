"""What do token log-probs and entropy cost without a full logits tensor, forward and backward?

    ours   mcore/logprobs.py: the head's product in chunks of tokens, computed again in backward
    plain  float32 logits of all tokens, log_softmax, gather; entropy from the same tensor
    torch  torch.nn.functional.linear_cross_entropy, chunked: log-probs alone, on one rank

Peak memory is what a run adds to the resident set of the process (Linux's VmHWM, reset before each),
the weight's gradient included. Plain takes three logits tensors: at 16,384 tokens 26 GB.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from apriel_mcore.bench.rounds import ratio

Numbers = dict[str, float | str]
Scores = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From hidden states, weight and targets to log-probs and entropy of each token."""
VOCAB = 131072


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the head."""
    parser.add_argument("--tokens", type=int, default=2048, help="response tokens scored")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--ways", nargs="+", default=["ours", "plain"], choices=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; figures are medians")
    parser.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> Numbers:
    """Time and peak memory of chunked log-probs against full logits, vocabulary 131072."""
    from apriel_mcore.bench.step import train_section
    from apriel_mcore.mcore import parallel

    parallel.start(train_section("fp32", args.threads), seed=0)
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(args.tokens, args.hidden, generator=generator).requires_grad_()
    weight_VH = torch.randn(VOCAB, args.hidden, generator=generator).mul_(0.05).requires_grad_()
    targets_N = torch.randint(VOCAB, (args.tokens,), generator=generator)

    def both_ways(scores: Scores) -> Tensor:
        logprobs_N, entropy_N = scores(hidden_NH, weight_VH, targets_N)
        logprobs_N.sum().backward()
        assert hidden_NH.grad is not None
        return torch.stack([logprobs_N.detach().sum(), hidden_NH.grad.norm(), entropy_N.sum()])

    found = {name: Found() for name in args.ways}
    for _ in range(args.rounds + 1):
        for name, way in found.items():
            hidden_NH.grad = weight_VH.grad = None
            way.measure(lambda name=name: both_ways(WAYS[name]))
    parallel.stop()
    return {"tokens": float(args.tokens), "vocabulary": float(VOCAB)} | _compare(found)


def _ours(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.logprobs import token_scores

    return token_scores(
        hidden_NH,
        weight_VH,
        targets_N,
        first_token=0,
        temperature_N=torch.ones(len(targets_N)),
        group=parallel.group("tensor"),
    )


def _plain(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    logprobs_NV = torch.log_softmax(hidden_NH @ weight_VH.T, dim=1)
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(dim=1)
    return logprobs_NV.gather(1, targets_N[:, None]).squeeze(1), entropy_N


def _torch(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    losses_N = torch.nn.functional.linear_cross_entropy(
        hidden_NH, weight_VH, targets_N, reduction="none", options=torch.nn.LinearCrossEntropyOptions()
    )
    return -losses_N, torch.full_like(targets_N, torch.nan, dtype=torch.float32)


WAYS: dict[str, Scores] = {"ours": _ours, "plain": _plain, "torch": _torch}


class Found:
    """Seconds and peak bytes of each round of a way, and its result."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.peaks: list[float] = []
        self.result = torch.zeros(3)

    def measure(self, work: Callable[[], Tensor]) -> None:
        """One round."""
        ctypes.CDLL(None).malloc_trim(0)  # what is freed must not count as there already
        _reset_peak()
        resident, start = _status_bytes("VmRSS"), time.perf_counter()
        self.result = work()
        self.seconds.append(time.perf_counter() - start)
        self.peaks.append(_status_bytes("VmHWM") - resident)


def _compare(found: dict[str, Found]) -> Numbers:
    """Medians over the rounds after the first, and ratios to plain; the ways must agree."""
    numbers: Numbers = {}
    for name, way in found.items():
        numbers[f"{name}_seconds"] = statistics.median(way.seconds[1:])
        numbers[f"{name}_peak_gb"] = statistics.median(way.peaks[1:]) / 1e9
    if "plain" not in found:
        return numbers
    plain = found["plain"]
    for name, way in found.items():
        known = ~way.result.isnan()
        torch.testing.assert_close(way.result[known], plain.result[known], rtol=1e-4, atol=1e-3)
        if name != "plain":
            suffix = "" if name == "ours" else f".{name}"
            numbers[f"ratio_time{suffix}"] = ratio(way.seconds[1:], plain.seconds[1:])
            numbers[f"ratio_peak_memory{suffix}"] = ratio(way.peaks[1:], plain.peaks[1:])
    return numbers


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")
