"""What do token log-probs and entropy cost without a full logits tensor, forward and backward?

    ours   mcore/logprobs.py: chunks of tokens, computed again in backward
    plain  float32 logits of all tokens, log_softmax, gather; entropy from the same tensor

Peak memory is what a run adds to the resident set of the process (Linux's VmHWM, reset before each),
the weight's gradient included.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from apriel_mcore.bench.rounds import ratio

Numbers = dict[str, float | str]
VOCAB = 131072


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size of the head."""
    parser.add_argument("--tokens", type=int, default=2048, help="response tokens scored")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; figures are medians")
    parser.add_argument("--threads", type=int, default=1)


def run(args: argparse.Namespace) -> Numbers:
    """Time and peak memory of chunked log-probs against full logits, vocabulary 131072."""
    from apriel_mcore.bench.step import train_section
    from apriel_mcore.mcore import parallel
    from apriel_mcore.mcore.logprobs import token_scores

    parallel.start(train_section("fp32", args.threads), seed=0)
    generator = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(args.tokens, args.hidden, generator=generator).requires_grad_()
    weight_VH = torch.randn(VOCAB, args.hidden, generator=generator).mul_(0.05).requires_grad_()
    targets_N = torch.randint(VOCAB, (args.tokens,), generator=generator)

    def ours() -> tuple[Tensor, Tensor]:
        return token_scores(
            hidden_NH,
            weight_VH,
            targets_N,
            first_token=0,
            temperature_N=torch.ones(args.tokens),
            group=parallel.group("tensor"),
        )

    def plain() -> tuple[Tensor, Tensor]:
        logprobs_NV = torch.log_softmax(hidden_NH @ weight_VH.T, dim=1)
        with torch.no_grad():
            entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(dim=1)
        return logprobs_NV.gather(1, targets_N[:, None]).squeeze(1), entropy_N

    def both_ways(scores: Callable[[], tuple[Tensor, Tensor]]) -> Tensor:
        hidden_NH.grad = weight_VH.grad = None
        logprobs_N, entropy_N = scores()
        logprobs_N.sum().backward()
        assert hidden_NH.grad is not None
        return torch.stack([logprobs_N.detach().sum(), entropy_N.sum(), hidden_NH.grad.norm()])

    numbers = _compare({"ours": lambda: both_ways(ours), "plain": lambda: both_ways(plain)}, args.rounds)
    parallel.stop()
    return {"tokens": float(args.tokens), "vocabulary": float(VOCAB)} | numbers


def _compare(ways: dict[str, Callable[[], Tensor]], rounds: int) -> Numbers:
    """Medians over interleaved rounds after one that does not count; the ways must agree."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Tensor] = {}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            _reset_peak()
            resident, start = _status_bytes("VmRSS"), time.perf_counter()
            results[name] = work()
            seconds[name].append(time.perf_counter() - start)
            peaks[name].append(_status_bytes("VmHWM") - resident)
    torch.testing.assert_close(results["ours"], results["plain"], rtol=1e-4, atol=1e-3)
    found: Numbers = {f"{name}_seconds": statistics.median(values[1:]) for name, values in seconds.items()}
    found |= {f"{name}_peak_gb": statistics.median(values[1:]) / 1e9 for name, values in peaks.items()}

    def within(found: dict[str, list[float]]) -> float:
        return ratio(found["ours"][1:], found["plain"][1:])

    return found | {"ratio_time": within(seconds), "ratio_peak_memory": within(peaks)}


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return float(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")
