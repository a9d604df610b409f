"""Which sandbox does the recipe name? That one, proven to work here, or an error."""

import functools

from apriel_mcore.config.schema import BwrapSandbox, FusionSandbox, LandlockSandbox
from apriel_mcore.verify.sandbox import Runner, open_sandbox
from apriel_mcore.verify.sandbox_fusion import FusionClient


@functools.cache
def runner_for(sandbox: BwrapSandbox | LandlockSandbox | FusionSandbox) -> Runner:
    """Opened once for each process; InputError when it does not work."""
    match sandbox:
        case BwrapSandbox():
            return open_sandbox("bwrap")
        case LandlockSandbox():
            return open_sandbox("landlock")
        case FusionSandbox(url=url):
            client = FusionClient(url)
            client.check()
            return client
