#!/usr/bin/env python3
"""In the place of apriel_mcore.cluster.node: counts to a number, saves when asked to, ends as it is told.

    -m MODULE LAUNCH ATTEMPT TASK     what the batch script calls

What it does stands in LAUNCH/plan.json: {"steps": 30, "seconds": 0.2, "exit": 0}. Each step and each start
is a line of LAUNCH/history-TASK.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    launch, attempt, task = Path(sys.argv[3]), Path(sys.argv[4]), sys.argv[5]
    node = (attempt / "hostnames").read_text().split().index(os.environ["SLURMD_NODENAME"])
    (attempt / f"here-{node}").write_text(str(os.getpid()))
    if node:
        wait_for(attempt / "exit-code")
        return
    wait_for(launch / "plan.json")
    plan = json.loads((launch / "plan.json").read_text())
    code = count(plan, launch / f"state-{task}", launch / f"history-{task}", attempt / "stop")
    (attempt / "exit-code").write_text(str(code))


def count(plan: dict[str, float], state: Path, history: Path, stop: Path) -> int:
    step = int(state.read_text()) if state.exists() else 0
    with history.open("a") as lines:
        print(f"start {step}", file=lines, flush=True)
        while step < plan["steps"]:
            if stop.exists():
                state.write_text(str(step))
                return 75
            time.sleep(plan["seconds"])
            step += 1
            print(f"step {step}", file=lines, flush=True)
    return int(plan["exit"])


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.1)


if __name__ == "__main__":
    main()
