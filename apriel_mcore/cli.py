"""`apriel`: parses, then opens the one door that was asked for. Nothing heavy is imported before that."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from apriel_mcore.errors import AprielError
from apriel_mcore.rundir import RunDir

type Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"
BENCHES = (
    "sampler",
    "reshard",
    "fp8",
    "publish",
    "verify",
    "step",
    "logprob",
    "parity",
    "convert",
    "checkpoint",
    "fp8_training",
)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; exits with the code that the error tree assigns."""
    args, rest = parser().parse_known_args(argv)
    if rest and args.door is not _bench:
        parser().error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest  # a bench reads its own options
    try:
        args.door(args)
    except AprielError as error:
        print(f"apriel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    """Every command and its flags; settings are overridden only as KEY=VALUE."""
    root = argparse.ArgumentParser(prog="apriel", description="RL post-training on Megatron-Core and vLLM.")
    commands = root.add_subparsers(required=True, metavar="COMMAND")

    train = _recipe_command(commands, "train", "train a recipe, or continue the run in --run-dir", _train)
    train.add_argument("--run-dir", type=Path, help="default: runs/NAME")
    train.add_argument("--override", action="store_true", help="continue a run whose recipe changed")
    _recipe_command(commands, "fetch", "bring model and data into the cache, verified by digest", _fetch)
    _recipe_command(commands, "check", "resolve and validate a recipe without starting anything", _check)
    _recipe_command(commands, "show", "print the resolved recipe", _show)
    _recipe_command(commands, "serve", "run one rollout server in the foreground", _serve)
    verifiers = _recipe_command(commands, "serve-verifiers", "judge for other hosts", _serve_verifiers)
    verifiers.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    verifiers.add_argument("--port", type=int, default=8800, help="default: 8800")
    verifiers.add_argument("--token-file", type=Path, help="default: the variable APRIEL_VERIFIER_TOKEN")

    evaluate = _recipe_command(commands, "eval", "held-out accuracy and tokens of a checkpoint", _eval)
    evaluate.add_argument("--checkpoint", type=Path, required=True, help="a folder under checkpoints/")

    _data_commands(commands)

    differ = commands.add_parser("diff", help="print the leaves in which two recipes differ")
    differ.add_argument("a", type=Path)
    differ.add_argument("b", type=Path)
    differ.set_defaults(door=_diff)

    report = commands.add_parser("report", help="write report.html of a run")
    report.add_argument("run_dir", type=Path)
    report.set_defaults(door=_report)

    compare = commands.add_parser("compare", help="print a table of several finished runs")
    compare.add_argument("run_dirs", type=Path, nargs="+")
    compare.set_defaults(door=_compare)

    convert = commands.add_parser("convert", help="model folder to Megatron checkpoint and back, proven")
    directions = convert.add_subparsers(required=True, metavar="DIRECTION")
    _to_mcore_command(directions)
    _to_hf_command(directions)

    plan = _recipe_command(commands, "plan", "best split of N GPUs: step time, lag, cost", _plan)
    _plan_arguments(plan)
    calibrate = commands.add_parser("calibrate", help="what stands behind `apriel plan`")
    kinds = calibrate.add_subparsers(required=True, metavar="KIND")
    kinds.add_parser("published", help="fit three published H100 rows, judge by all others").set_defaults(
        door=_calibrate_published
    )

    bench = commands.add_parser("bench", help="measure one part of the system")
    names = bench.add_subparsers(required=True, metavar="NAME")
    for name in BENCHES:
        names.add_parser(name, add_help=False).set_defaults(door=_bench, bench=name)
    return root


def _recipe_command(
    commands: Commands, name: str, summary: str, door: Callable[[argparse.Namespace], None]
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary)
    command.add_argument("recipe", type=Path)
    command.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    command.set_defaults(door=door)
    return command


def _data_commands(commands: Commands) -> None:
    data = commands.add_parser("data", help="look at a recipe's problems, and replay their gold answers")
    views = data.add_subparsers(required=True, metavar="VIEW")
    _recipe_command(views, "stats", "counts, lengths, rejects and overlaps", _data_stats)
    sample = _recipe_command(views, "sample", "print rendered problems with their gold", _data_sample)
    sample.add_argument("--domain", help="default: every domain")
    sample.add_argument("--num", type=int, default=3, help="problems a domain (default: 3)")
    verify = _recipe_command(views, "verify", "gold answers through the verifiers", _data_verify)
    verify.add_argument("--wrong", type=int, default=0, metavar="N", help="also N changed answers a domain")
    verify.add_argument("--json", type=Path, help="also write every failure to this file, one a line")


def _to_mcore_command(directions: Commands) -> None:
    command = _conversion_command(directions, "hf-to-mcore", "Hugging Face folder to Megatron checkpoint")
    for flag, what in (("--tp", "tensor"), ("--pp", "pipeline"), ("--vpp", "virtual pipeline")):
        text = f"{what} ranks whose shards are written; any layout can load them (default: 1)"
        command.add_argument(flag, type=int, default=1, help=text)
    command.set_defaults(door=_hf_to_mcore)


def _to_hf_command(directions: Commands) -> None:
    command = _conversion_command(directions, "mcore-to-hf", "Megatron checkpoint to Hugging Face folder")
    command.add_argument("--like", type=Path, metavar="FOLDER", help="its model, where SRC does not say")
    command.add_argument("--shard-gb", type=float, default=5.0, help="largest weight file (default: 5)")
    command.set_defaults(door=_mcore_to_hf)


def _conversion_command(directions: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    command = directions.add_parser(name, help=summary)
    command.add_argument("source", type=Path, metavar="SRC")
    command.add_argument("target", type=Path, metavar="DST", help="must not exist; an unfinished one goes on")
    command.add_argument("--dtype", choices=("bf16", "fp32"), help="default: that of SRC")
    command.add_argument("--no-probe", action="store_true", help="leave out the parity check of log-probs")
    return command


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, nargs="+", required=True, help="one plan for each number")
    parser.add_argument("--profile", default="h100", help="what ships, or a file (default: h100)")
    parser.add_argument("--lengths", type=Path, help="TOML: a table a domain with mean, sigma, keep, prompt")
    parser.add_argument("--weak", type=int, default=0, metavar="N", help="batch in proportion, recipe's at N")
    parser.add_argument(
        "--skew", type=float, nargs="+", default=[], help="also with these sigmas, last --gpus"
    )
    parser.add_argument("--html", type=Path, help="write a page with charts")


def _train(args: argparse.Namespace) -> None:
    from apriel_mcore import launcher, preflight, rundir
    from apriel_mcore.config.load import load

    launcher.heed_early_stop()
    config = load(args.recipe, args.overrides)
    run_dir = RunDir(args.run_dir or Path("runs") / config.name)
    for remark in config.remarks():
        print(f"apriel: note: {remark}", file=sys.stderr)
    if not args.override:
        rundir.check_same_recipe(run_dir, config)
    preflight.require_kernels(config)
    preflight.check(config, run_dir, tell=lambda line: None)
    with rundir.held(run_dir):
        rundir.prepare(run_dir, config)
        launcher.train(config, run_dir)
        _finish(run_dir)


def _finish(run_dir: RunDir) -> None:
    from apriel_mcore.obs import report, summary

    report.write(run_dir.root)
    summary.show(run_dir)


def _fetch(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.data.fetch import fetch

    fetch(load(args.recipe, args.overrides))


def _check(args: argparse.Namespace) -> None:
    from apriel_mcore import preflight
    from apriel_mcore.config.load import load

    config = load(args.recipe, args.overrides)
    preflight.check(config, RunDir(Path("runs") / config.name), tell=print)


def _data_stats(args: argparse.Namespace) -> None:
    from apriel_mcore import data_views
    from apriel_mcore.config.load import load

    data_views.stats(load(args.recipe, args.overrides))


def _data_sample(args: argparse.Namespace) -> None:
    from apriel_mcore import data_views
    from apriel_mcore.config.load import load

    data_views.sample(load(args.recipe, args.overrides), domain=args.domain, num=args.num)


def _data_verify(args: argparse.Namespace) -> None:
    from apriel_mcore import gold_replay
    from apriel_mcore.config.load import load

    gold_replay.run(load(args.recipe, args.overrides), num_wrong=args.wrong, failures=args.json)


def _show(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import dump, load

    print(dump(load(args.recipe, args.overrides)), end="")


def _diff(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import diff, load

    for key, (old, new) in diff(load(args.a), load(args.b)).items():
        print(f"{key}: {old!r} -> {new!r}")


def _serve(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.rollout.server import serve

    serve(load(args.recipe, args.overrides))


def _serve_verifiers(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.verify import service

    config = load(args.recipe, args.overrides)
    service.serve(config, host=args.host, port=args.port, token=service.read_token(args.token_file))


def _eval(args: argparse.Namespace) -> None:
    from apriel_mcore import eval_checkpoint
    from apriel_mcore.config.load import load

    eval_checkpoint.run(load(args.recipe, args.overrides), args.checkpoint)


def _report(args: argparse.Namespace) -> None:
    from apriel_mcore.obs import report

    print(report.write(args.run_dir))


def _compare(args: argparse.Namespace) -> None:
    from apriel_mcore.obs import compare

    print(compare.table(args.run_dirs))


def _hf_to_mcore(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.hf_to_mcore(args)


def _mcore_to_hf(args: argparse.Namespace) -> None:
    from apriel_mcore.convert import door

    door.mcore_to_hf(args)


def _plan(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.plan(args)


def _calibrate_published(args: argparse.Namespace) -> None:
    from apriel_mcore.planning import door

    door.calibrate_published(args)


def _bench(args: argparse.Namespace) -> None:
    from apriel_mcore.bench import door

    door.run(args.bench, args.rest)


if __name__ == "__main__":
    main()
