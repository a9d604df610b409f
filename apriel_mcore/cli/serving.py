"""`apriel serve` and `serve-verifiers`: one part of the system, in the foreground."""

import argparse
from pathlib import Path

from apriel_mcore.cli.arguments import Commands, recipe_command


def add(commands: Commands) -> None:
    """Add `serve` and `serve-verifiers`."""
    recipe_command(commands, "serve", "run one rollout server in the foreground", _serve)
    verifiers = recipe_command(commands, "serve-verifiers", "judge for other hosts", _serve_verifiers)
    verifiers.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    verifiers.add_argument("--port", type=int, default=8800, help="default: 8800")
    verifiers.add_argument("--token-file", type=Path, help="default: the variable APRIEL_VERIFIER_TOKEN")


def _serve(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.rollout.server import serve

    serve(load(args.recipe, args.overrides))


def _serve_verifiers(args: argparse.Namespace) -> None:
    from apriel_mcore.config.load import load
    from apriel_mcore.verify import service

    config = load(args.recipe, args.overrides)
    service.serve(config, host=args.host, port=args.port, token=service.read_token(args.token_file))
