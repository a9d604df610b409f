"""`apriel eval`: how good is a model, and which of several is better?"""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add `eval`, `eval-compare` and `best`."""
    evaluate = recipe_command(commands, "eval", "accuracy and tokens of a model, at several budgets", _eval)
    subject = evaluate.add_mutually_exclusive_group()
    subject.add_argument("--checkpoint", type=Path, metavar="DIR", help="RUN_DIR/checkpoints/step_N")
    subject.add_argument(
        "--model", type=Path, metavar="DIR", help="a Hugging Face folder (default: the recipe's)"
    )
    subject.add_argument("--url", help="an OpenAI-compatible server, as http://HOST:PORT")
    evaluate.add_argument("--served-model", default="", help="its name there, where it has several")
    evaluate.add_argument(
        "--on", nargs="+", default=["domains"], metavar="TASK", help="domains, BENCHMARK or BENCHMARK=FILE"
    )
    evaluate.add_argument("--definitions", type=Path, nargs="+", default=[], help="TOML with benchmarks")
    evaluate.add_argument("--budgets", type=_positive, nargs="+", default=[], metavar="TOKENS")
    evaluate.add_argument("--samples", type=_positive, default=0, help="answers to each problem")
    evaluate.add_argument("--limit", type=_positive, default=0, help="problems of each task")
    evaluate.add_argument(
        "--force-answer",
        nargs="?",
        const="</think>",
        default="",
        metavar="MARK",
        help="also with cut answers made to end, after the mark that ends thinking (default: </think>)",
    )
    evaluate.add_argument("--name", default="", help="of the result (default: the model's)")
    evaluate.add_argument("--out", type=Path, default=Path("evals"), help="folder (default: evals)")

    compare = commands.add_parser("eval-compare", help="models side by side: Pareto plot, paired differences")
    compare.add_argument("results", type=Path, nargs="+", metavar="RESULT", help="JSON of `apriel eval`")
    compare.add_argument("--published", action="store_true", help="the paper's rows beside the measured ones")
    compare.add_argument(
        "--svg", type=Path, help="write the plot (the mean over tasks, if there are several)"
    )
    compare.add_argument("--html", type=Path, help="write a page with every plot and table")
    compare.add_argument("--json", type=Path, help="write the numbers")
    compare.set_defaults(door=_compare)

    best = commands.add_parser("best", help="the checkpoint of a run with the best mean over domains")
    best.add_argument("run_dir", type=Path)
    best.add_argument("--from-step", type=int, default=1, metavar="N", help="leave out earlier ones")
    best.set_defaults(door=_best)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return number


def _eval(args: argparse.Namespace) -> None:
    import msgspec

    from apriel_mcore.config.load import load
    from apriel_mcore.config.schema import FolderModel
    from apriel_mcore.evaluation import run, subject
    from apriel_mcore.evaluation.tasks import Scope

    config = load(args.recipe, args.overrides)
    if args.checkpoint:
        chosen = subject.checkpoint(args.checkpoint)
    elif args.url:
        chosen = subject.at(args.url, args.served_model)
    else:
        chosen = subject.folder(FolderModel(path=str(args.model)) if args.model else config.model)
    if args.name:
        chosen = msgspec.structs.replace(chosen, name=args.name)
    scope = Scope(on=tuple(args.on), budgets=tuple(args.budgets), samples=args.samples, limit=args.limit)
    order = run.Order(
        subject=chosen,
        scope=scope,
        definitions=tuple(args.definitions),
        end_of_thinking=args.force_answer,
        out=args.out,
    )
    run.run(config, order)


def _compare(args: argparse.Namespace) -> None:
    from apriel_mcore.evaluation import view

    outputs = view.Outputs(svg=args.svg, html=args.html, json=args.json, with_published=args.published)
    view.run(args.results, outputs)


def _best(args: argparse.Namespace) -> None:
    from apriel_mcore.evaluation import selection

    selection.run(args.run_dir, from_step=args.from_step)
