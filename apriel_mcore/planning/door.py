"""`apriel plan` and `apriel calibrate`: from the command line to tables, and a page of charts when asked."""

import argparse
from pathlib import Path

import msgspec

from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.config.load import load
from apriel_mcore.config.schema import LocalServers
from apriel_mcore.data import model_files
from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware, host_check, host_fit, measured, published, report, search, study
from apriel_mcore.planning.past_run import PastRun
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.workload import ASSUMED, MOST_SIGMA, DomainLengths

_LENGTHS_ORIGIN = "assumed: no run of this recipe was measured (give --lengths RUN_DIR or FILE)"
_MOST_LAG = 256


def plan(args: argparse.Namespace) -> None:
    """Print the best split for each number of GPUs, or what the recipe's own does; write the page where
    `--html` says. InputError before any work."""
    _check(args)
    question = _question(args)
    origin = str(args.lengths) if args.lengths else _LENGTHS_ORIGIN
    if args.as_is:
        print("\n".join(report.own_lines(search.as_is(question), question, origin=origin)))
        return
    wanted = study.Wanted(gpus=args.gpus, most_lag=args.max_lag, weak_from=args.weak, skews=args.skew)
    found = study.run(question, wanted)
    print("\n".join(report.lines(found, question, origin=origin, weak_from=args.weak)))
    if args.html:
        text = report.page(found, question, origin=origin, weak_from=args.weak)
        args.html.write_text(text, encoding="utf-8")


def calibrate_published(args: argparse.Namespace) -> None:
    """Fit three published rows, and judge the fit by all others."""
    table = published.read()
    fitted = published.fit(table, hardware.load("h100"))
    print("\n".join(published.lines(table, fitted)))


def calibrate_machine(args: argparse.Namespace) -> None:
    """Measure this machine's device and write a profile of it. InputError before, where it cannot."""
    from apriel_mcore.planning import machine, rates

    if args.out.is_dir() or not args.out.parent.is_dir():
        raise InputError(f"--out {args.out}: give a file in a folder that exists")
    found = rates.measure(args.device)
    args.out.write_text(machine.toml(machine.profile_of(found, hardware.load(args.base))), encoding="utf-8")
    print("\n".join(machine.lines(found)))
    print(f"\nwrote {args.out}: `apriel plan RECIPE --gpus N --profile {args.out}`")


def calibrate_host(args: argparse.Namespace) -> None:
    """Fit this host to some runs, and judge the simulation by others."""
    fitted = [PastRun.read(run_dir) for run_dir in args.run_dirs]
    judged = [PastRun.read(run_dir) for run_dir in args.against]
    print("\n".join(host_check.lines(fitted, judged, host_fit.fit(fitted))))


def _check(args: argparse.Namespace) -> None:
    if args.as_is:
        if args.gpus or args.skew or args.weak or args.html:
            raise InputError("--as-is plans the recipe's own split: leave out --gpus, --skew, --weak, --html")
        return
    if not args.gpus:
        raise InputError("--gpus is missing: give numbers of GPUs, or --as-is for the recipe's own split")
    if min(args.gpus) < 2:
        raise InputError(f"--gpus {min(args.gpus)}: a trainer and a server need two GPUs at least")
    if args.weak < 0:
        raise InputError(f"--weak {args.weak}: give the number of GPUs that train the recipe's batch")
    if not 1 <= args.max_lag <= _MOST_LAG:
        raise InputError(f"--max-lag {args.max_lag:g}: give 1 to {_MOST_LAG} optimizer steps")
    if wrong := [sigma for sigma in args.skew if not 0 < sigma <= MOST_SIGMA]:
        raise InputError(f"--skew {wrong[0]:g}: a sigma is above 0 and at most {MOST_SIGMA:g}")
    if args.html and (args.html.is_dir() or not args.html.parent.is_dir()):
        raise InputError(f"--html {args.html}: give a file in a folder that exists")


def _question(args: argparse.Namespace) -> Question:
    config = load(args.recipe, args.overrides)
    if not isinstance(config.rollout.servers, LocalServers) or config.train.device != "cuda":
        raise InputError(
            f"{args.recipe}: `apriel plan` sizes GPU recipes with servers of their own: "
            'set train.device = "cuda" and rollout.servers.kind = "local"'
        )
    lengths = _lengths(args.lengths)
    if missing := sorted(set(config.domains) - set(lengths)):
        raise InputError(f"lengths of the domains {missing} are unknown; give them with --lengths FILE")
    return Question(
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
        raise InputError(
            f"--lengths {path}: {error}; a table a domain with mean, sigma, keep, prompt"
        ) from None
