"""Which judges does a recipe ask for: rules here or on services elsewhere, and a model after them?"""

from pathlib import Path

from apriel_mcore.config.schema import EndpointJudge, RunConfig, Verify
from apriel_mcore.verify.endpoint import read_judge_token
from apriel_mcore.verify.grade import VerifierPool
from apriel_mcore.verify.remote import RemoteVerifiers
from apriel_mcore.verify.second import SecondOpinion
from apriel_mcore.verify.service import read_token

type Judges = VerifierPool | RemoteVerifiers | SecondOpinion


def judges(config: RunConfig) -> Judges:
    """Not started; InputError when a token cannot be read."""
    rules = _rules(config)
    if isinstance(config.model_judge, EndpointJudge):
        token = read_judge_token(config.model_judge.token_file)
        return SecondOpinion(rules, config.model_judge, token=token)
    return rules


def _rules(config: RunConfig) -> VerifierPool | RemoteVerifiers:
    if isinstance(config.verify, Verify):
        return VerifierPool(config.verify)
    return RemoteVerifiers(config.verify, token=read_token(Path(config.verify.token_file)))
