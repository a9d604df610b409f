"""One node of a launched job: `python -m apriel_mcore.cluster.node LAUNCH ATTEMPT TASK`, once per node.

    announce own address --> lead | train | host servers | judge --> the run's exit code, in a file

The step itself ends with 0 whenever the leading node has said how the run ended, so that no node is killed
while another one still writes; the batch script takes the run's status from that file.
"""

import logging
import os
import sys
import traceback
from pathlib import Path

from apriel_mcore.cluster import place as places
from apriel_mcore.cluster.folders import AttemptFolder, LaunchFolder, put
from apriel_mcore.cluster.place import Ended, Place
from apriel_mcore.errors import AprielError


def main() -> None:
    """Do what the node's place in the job asks for."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    launch, attempt, task = sys.argv[1:]
    place = places.find(LaunchFolder(Path(launch)), AttemptFolder(Path(attempt)), task=int(task))
    if place.node == 0:
        _lead(place)
    else:
        _follow(place)


def _lead(place: Place) -> None:
    """Whatever happens, the others learn how it ended."""
    code = 1
    try:
        code = _outcome(place)
    finally:
        put(place.attempt.exit_code, str(code).encode())


def _outcome(place: Place) -> int:
    from apriel_mcore.cluster.lead import lead

    try:
        os.environ.update(places.read_variables(place.site))
        place.announce()
        lead(place)
    except AprielError as error:
        places.say(f"apriel: {error}")
        return error.exit_code
    return 0


def _follow(place: Place) -> None:
    from apriel_mcore.cluster import follow, host

    work = {"trainer": follow.train, "rollout": host.host, "verifier": follow.judge}
    try:
        os.environ.update(places.read_variables(place.site))
        place.announce()
        work[place.nodes.role(place.node)](place)
    except Ended:
        places.say("the run has ended")
    except AprielError as error:
        traceback.print_exc()
        place.report(error)
        _wait_for_end(place)


def _wait_for_end(place: Place) -> None:
    """The leading node hears of the failure and ends the run."""
    try:
        place.wait_until(place.attempt.exit_code)
    except Ended:
        return


if __name__ == "__main__":
    main()
