"""Which judges does a recipe ask for: processes of its own on this host, or services elsewhere?"""

from pathlib import Path

from apriel_mcore.config.schema import RemoteVerify, Verify
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.remote import RemoteVerifiers
from apriel_mcore.verify.service import read_token


def judges(config: Verify | RemoteVerify) -> VerifierPool | RemoteVerifiers:
    """Not started; InputError when the token cannot be read."""
    if isinstance(config, Verify):
        return VerifierPool(config)
    return RemoteVerifiers(config, token=read_token(Path(config.token_file)))
