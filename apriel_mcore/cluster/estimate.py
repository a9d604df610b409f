"""What would this launch take: memory of each process, seconds of a step, hours of the run?

Memory is memory.py's, as `apriel check` says it; time is the planner's for this very layout, where a profile
of the hardware exists.
"""

from apriel_mcore import sizing
from apriel_mcore.bridge import shape as model_shape
from apriel_mcore.bridge.shape import ModelShape
from apriel_mcore.config.schema import RunConfig
from apriel_mcore.config.schema.site import Site
from apriel_mcore.data import model_files
from apriel_mcore.errors import InputError
from apriel_mcore.planning import hardware, search
from apriel_mcore.planning.question import Question
from apriel_mcore.planning.workload import ASSUMED

_PROFILE = "h100"


def lines(config: RunConfig, site: Site) -> list[str]:
    """For a person; says so where nothing is known on this machine."""
    try:
        shape = model_shape.read(model_files.config_folder(config.model))
    except InputError as error:
        return [f"unknown here: {error}"]
    if config.train.device == "cpu":
        return [
            'memory       train.device = "cpu": no GPU to size',
            "time         no profile of this hardware: the first steps will tell (`apriel status`)",
        ]
    return [*sizing.describe(config, shape), *_time(config, shape, site)]


def require_fit(config: RunConfig) -> None:
    """ConfigError where a GPU would run out of memory; nothing where the model's config is not here."""
    if config.train.device == "cpu":
        return
    try:
        shape = model_shape.read(model_files.config_folder(config.model))
    except InputError:  # the job itself checks again before it starts anything
        return
    sizing.require_fit(config, shape)


def _time(config: RunConfig, shape: ModelShape, site: Site) -> list[str]:
    if missing := sorted(set(config.domains) - set(ASSUMED)):
        return [f"time         lengths of the domains {', '.join(missing)} are unknown"]
    question = Question(
        config=config,
        shape=shape,
        profile=hardware.load(_PROFILE),
        lengths={name: ASSUMED[name] for name in config.domains},
    )
    outcome = search.as_is(question)
    hours = outcome.step_s * config.train.num_steps / 3600
    lines = [
        f"time         {outcome.step_s:.0f} s a step by the planner's {_PROFILE} profile and assumed lengths "
        f"(docs/planning.md), limited by: {outcome.bottleneck}",
        f"             {hours:.1f} h for {config.train.num_steps} steps, evaluations and starts not counted; "
        f"the limit of an attempt is {site.batch.time}",
    ]
    if outcome.step_s > site.batch.save_before_s / 2:
        lines.append(
            f"note         batch.save_before_s = {site.batch.save_before_s} must hold such a step and a "
            "checkpoint: raise it"
        )
    return lines
