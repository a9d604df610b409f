"""`apriel plan` and `apriel calibrate`: from the command line to tables, and a page of charts when asked."""

import argparse
from pathlib import Path

import msgspec

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import LocalServers
from apriel_mcore.data import model_files
from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware, host_check, host_fit, measured, published, report, search
from apriel_mcore.planning.past_run import PastRun
from apriel_mcore.planning.workload import ASSUMED, DomainLengths

_LENGTHS_ORIGIN = "assumed: no run of this recipe was measured (give --lengths RUN_DIR or FILE)"


def plan(args: argparse.Namespace) -> None:
    """Print the best split for each number of GPUs; write the page where `--html` says."""
    if min(args.gpus) < 2:
        raise InputError(f"--gpus {min(args.gpus)}: a trainer and a server need two GPUs at least")
    question = _question(args)
    outcomes = {num_gpus: _best(question, num_gpus, weak_from=args.weak) for num_gpus in args.gpus}
    last = args.gpus[-1]
    skews = {sigma: _best(_skewed(question, sigma), last, weak_from=args.weak) for sigma in args.skew}
    origin = str(args.lengths) if args.lengths else _LENGTHS_ORIGIN
    print("\n".join(report.lines(outcomes, skews, question, origin=origin)))
    if args.html:
        args.html.write_text(report.page(outcomes, skews, question, origin=origin), encoding="utf-8")


def calibrate_published(args: argparse.Namespace) -> None:
    """Fit three published rows, and judge the fit by all others."""
    table = published.read()
    fitted = published.fit(table, hardware.load("h100"))
    print("\n".join(published.lines(table, fitted)))


def calibrate_host(args: argparse.Namespace) -> None:
    """Fit this host to some runs, and judge the simulation by others."""
    fitted = [PastRun.read(run_dir) for run_dir in args.run_dirs]
    judged = [PastRun.read(run_dir) for run_dir in args.against]
    print("\n".join(host_check.lines(fitted, judged, host_fit.fit(fitted))))


def _best(question: search.Question, num_gpus: int, *, weak_from: int) -> search.Outcome:
    """`weak_from` GPUs train the recipe's batch and others one in proportion; 0: all train the recipe's."""
    if weak_from:
        train = question.config.train
        groups = max(1, train.groups_per_step * num_gpus // weak_from)
        changed = msgspec.structs.replace(train, groups_per_step=groups)
        config = msgspec.structs.replace(question.config, train=changed)
        question = msgspec.structs.replace(question, config=config)
    return search.best(question, num_gpus)


def _question(args: argparse.Namespace) -> search.Question:
    config = load(args.recipe, args.overrides)
    if not isinstance(config.rollout.servers, LocalServers) or config.train.device != "cuda":
        raise InputError(
            f"{args.recipe}: `apriel plan` sizes GPU recipes with servers of their own: "
            'set train.device = "cuda" and rollout.servers.kind = "local"'
        )
    lengths = _lengths(args.lengths)
    if missing := sorted(set(config.domains) - set(lengths)):
        raise InputError(f"lengths of the domains {missing} are unknown; give them with --lengths FILE")
    return search.Question(
        config=config,
        shape=model_shape.read(model_files.config_folder(config.model)),
        profile=hardware.load(args.profile),
        lengths={name: lengths[name] for name in config.domains},
    )


def _lengths(path: Path | None) -> dict[str, DomainLengths]:
    if path is None:
        return ASSUMED
    if path.is_dir():
        found = measured.lengths(path)
        print("\n".join([*measured.lines(found), ""]))
        return found
    try:
        return msgspec.toml.decode(path.read_bytes(), type=dict[str, DomainLengths])
    except OSError as error:
        raise InputError(f"--lengths {path}: cannot be read ({error.strerror})") from None
    except msgspec.DecodeError as error:
        raise InputError(f"--lengths {path}: {error}; a table a domain with mean, sigma, keep") from None


def _skewed(question: search.Question, sigma: float) -> search.Question:
    """The same means, another spread."""
    lengths = {name: msgspec.structs.replace(one, sigma=sigma) for name, one in question.lengths.items()}
    return msgspec.structs.replace(question, lengths=lengths)
