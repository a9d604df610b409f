"""How fast is this host? Its constants, fitted to runs of this program.

    runs with max_lag = 0   trainer and servers take turns: what each of them takes alone
    runs that overlap       what they take from each other beyond their shares of the cores: with one server
                            all of it, with more the publish

Shape suffix: _A answers of one server in one step.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec.structs import replace

from apriel_mcore.errors import InputError
from apriel_mcore.planning.occupancy import Moment, moments
from apriel_mcore.planning.past_run import PastRun, num_tokens
from apriel_mcore.planning.pool import Decode
from apriel_mcore.planning.shared_host import Host, HostPublish
from apriel_mcore.types import Group

_WARM_UP = 1
"""Steps of a run that are not looked at: kernels and caches are cold."""
_BISECTIONS = 40


def fit(runs: Sequence[PastRun]) -> Host:
    """InputError when a kind of run is missing."""
    alone = [run for run in runs if run.takes_turns]
    single = [run for run in alone if run.threads == 1]
    several = [run for run in alone if run.threads > 1]
    together = [run for run in runs if not run.takes_turns and run.servers.count == 1]
    sizes = {run.config.train.groups_per_step for run in single}
    if len(sizes) < 2 or not several or not together:
        raise InputError(
            "calibrate host: give runs with rollout.max_lag=0 and train.threads=1 of two sizes of "
            "train.groups_per_step, one with max_lag=0 and more threads, and one with a max_lag above 0 and "
            "one server"
        )
    if any(run.config.advantage.filter_on != "off" for run in alone):
        raise InputError(
            "calibrate host: the runs with rollout.max_lag=0 need advantage.filter_on=off: a group that is "
            "filtered leaves no answers behind"
        )
    fixed_s, token_s = _train(single)
    host = Host(
        num_cores=runs[0].num_cores,
        decode=_decode([run for run in alone if run.servers.count == 1]),
        train_fixed_s=fixed_s,
        train_token_s=token_s,
        parallel_share=1.0,
        publish=_publishes(runs),
        trainer_beside=1.0,
        server_beside=1.0,
    )
    host = replace(host, parallel_share=_parallel_share(several, host))
    return replace(
        host, trainer_beside=_trainer_beside(together, host), server_beside=_server_beside(together, host)
    )


def _steps(run: PastRun) -> Iterator[tuple[float, list[Group]]]:
    """Seconds and groups of each optimizer step that is looked at. Not the last: what ran when it ended was
    not written down."""
    seconds = [event["time_train_s"] for event in run.steps]
    yield from list(zip(seconds, run.groups, strict=True))[_WARM_UP:-1]


def _moments(run: PastRun) -> Iterator[Moment]:
    """Of those steps, with the waits before them."""
    return moments(run, after=run.steps[_WARM_UP - 1]["time"], before=run.steps[-2]["time"])


def _train(runs: Sequence[PastRun]) -> list[float]:
    """Fixed seconds and seconds of a token."""
    rows = [(seconds, (1, num_tokens(groups, run.config))) for run in runs for seconds, groups in _steps(run)]
    return _least_squares(rows)


def _parallel_share(runs: Sequence[PastRun], host: Host) -> float:
    """Amdahl: took = one * (1 - p + p / threads)."""
    shares = [
        (1 - seconds / host.step_seconds(num_tokens(groups, run.config), threads=1)) / (1 - 1 / run.threads)
        for run in runs
        for seconds, groups in _steps(run)
    ]
    return min(1.0, max(0.0, statistics.median(shares)))


def _decode(runs: Sequence[PastRun]) -> Decode:
    """Where turns are taken, the answers of a step begin together. The one with n tokens takes all prefills,
    n steps, and the answers that ran in each of them."""
    rows: list[tuple[float, tuple[float, ...]]] = []
    for run in runs:
        for _, groups in _steps(run):
            rollouts = [rollout for group in groups for rollout in group.rollouts_G]
            for name in {rollout.server for rollout in rollouts}:
                mine = [rollout for rollout in rollouts if rollout.server == name]
                tokens_A = np.array([len(rollout.tokens_T) for rollout in mine])
                rows += [
                    (rollout.seconds, (num, float(np.minimum(tokens_A, num).sum()), len(mine)))
                    for rollout, num in zip(mine, tokens_A.tolist(), strict=True)
                ]
    step_s, per_request_s, prefill_s = _least_squares(rows)
    return Decode(step_s=step_s, per_request_s=per_request_s, per_token_s=0.0, prefill_s=prefill_s)


def _publishes(runs: Sequence[PastRun]) -> dict[int, HostPublish]:
    """By the numbers of servers of which there are runs that take turns and runs that overlap."""
    alone, beside = ([run for run in runs if run.takes_turns is turns] for turns in (True, False))
    counts = {run.servers.count for run in alone} & {run.servers.count for run in beside}
    found: dict[int, HostPublish] = {}
    for count in counts:
        seconds = _usual(alone, "publish", count, each=1)
        found[count] = HostPublish(
            seconds=seconds,
            beside=_publish_beside([run for run in beside if run.servers.count == count], seconds),
            swap_s=_usual(alone, "take weights", count, each=count),
        )
    return found


def _publish_beside(runs: Sequence[PastRun], alone_s: float) -> float:
    """Such that the publishes of these runs were done in the time that they took."""
    work = alone_s * sum(1 for run in runs for _ in _steps(run))
    stretches = [
        (moment.seconds, len(moment.running)) for run in runs for moment in _moments(run) if moment.publishes
    ]
    if work <= sum(seconds for seconds, busy in stretches if not busy):
        raise InputError(
            f"calibrate host: {', '.join(run.name for run in runs)}: no server had answers while weights "
            "were published; give a longer run, with a larger rollout.max_lag or smaller servers.max_num_seqs"
        )
    return _bisect(lambda beside: work - sum(seconds * beside**busy for seconds, busy in stretches))


def _bisect(missing: Callable[[float], float]) -> float:
    """Where `missing`, which falls, is 0; between 0 and 1."""
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if missing(middle) > 0 else (low, middle)
    return (low + high) / 2


def _usual(runs: Sequence[PastRun], name: str, num_servers: int, *, each: int) -> float:
    """Median of what there is `each` times a publish, without the first publish of a run, which is cold."""
    mine = [run for run in runs if run.servers.count == num_servers]
    return statistics.median(span.seconds for run in mine for span in run.spans_of(name)[_WARM_UP * each :])


def _least_squares(rows: Sequence[tuple[float, tuple[float, ...]]]) -> list[float]:
    """Coefficients, none below zero: a column that would be is left out."""
    seconds = np.array([row[0] for row in rows])
    features = np.array([row[1] for row in rows], dtype=float)
    kept = list(range(features.shape[1]))
    while True:
        found = np.linalg.lstsq(features[:, kept], seconds)[0]
        if found.min() >= 0:
            coefficients = np.zeros(features.shape[1])
            coefficients[kept] = found
            return coefficients.tolist()
        del kept[int(found.argmin())]


def _speeds(run: PastRun, host: Host, moment: Moment) -> tuple[float, float]:
    return host.speeds(
        threads=run.threads,
        num_servers=run.servers.count,
        num_busy=len(moment.running),
        training=moment.trainer_works,
    )


def _trainer_beside(runs: Sequence[PastRun], host: Host) -> float:
    """The work that was done beside busy servers, over what the share of the cores was good for."""
    work = share = 0.0
    for run in runs:
        work += sum(
            host.step_seconds(num_tokens(groups, run.config), threads=run.threads)
            for _, groups in _steps(run)
        )
        for moment in _moments(run):
            if moment.trains and moment.running:
                share += moment.seconds * _speeds(run, host, moment)[0]
            elif moment.trains:
                work -= moment.seconds
    return min(1.0, work / share)


def _server_beside(runs: Sequence[PastRun], host: Host) -> float:
    """Such that the tokens come out that were generated."""
    return _bisect(lambda beside: sum(_missing_tokens(run, host, beside) for run in runs))


def _missing_tokens(run: PastRun, host: Host, beside: float) -> float:
    """Generated, less what the model says of the answers that ran and of the prefills among them."""
    begin, end = run.steps[_WARM_UP - 1], run.steps[-2]
    requests = end["feed.pool.requests"] - begin["feed.pool.requests"]
    host = replace(host, server_beside=beside)
    seconds = tokens = 0.0
    for moment in _moments(run):
        if moment.swaps:
            continue
        worked = moment.seconds * _speeds(run, host, moment)[1]
        seconds += worked * len(moment.running)
        tokens += worked * sum(host.decode.tokens_per_s(running, 0.0) for running in moment.running)
    decoding = max(0.0, 1 - host.decode.prefill_s * requests / seconds)
    return end["feed.pool.tokens"] - begin["feed.pool.tokens"] - decoding * tokens
