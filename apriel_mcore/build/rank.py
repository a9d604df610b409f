"""What is built first on every rank, and what everything else of it is built from."""

from contextlib import ExitStack
from pathlib import Path

import msgspec

from apriel_mcore.config.schema import RunConfig
from apriel_mcore.data.prompts import Renderer
from apriel_mcore.mcore.parallel import Ranks
from apriel_mcore.rundir import RunDir


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """One trainer rank. `resources` ends what was started, in reverse order."""

    config: RunConfig
    run_dir: RunDir
    model: Path
    ranks: Ranks
    renderer: Renderer
    resources: ExitStack
