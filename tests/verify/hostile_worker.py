"""A worker with judges that misbehave: what the pool must survive. Run as a program by test_grade.py."""

import os
import signal
import sys
import time
from typing import Any

from apriel_mcore.config.schema import Verify
from apriel_mcore.errors import Starved
from apriel_mcore.types import Verdict
from apriel_mcore.verify.worker import JUDGES, Judge, main

starved: set[str] = set()
priorities: list[int] = []
"""Of the thread that warmed up."""


def say(text: str) -> Verdict:
    return Verdict(score=0.0, success=False, status="wrong", detail=text)


def judge(reference: dict[str, Any], text: str) -> Verdict:
    match reference["do"]:
        case "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            while True:
                time.sleep(1)
        case "exit":
            os._exit(3)
        case "raise":
            raise RuntimeError("broken judge")
        case "surrogate":
            return say("\ud800")
        case "eat":
            return say(str(len(bytearray(64 << 30))))
        case "print":
            print("noise" * 1000)
            return say(text)
        case "starve":
            raise Starved("the host was busy")
        case "starve once":
            if text not in starved:
                starved.add(text)
                raise Starved("the host was busy")
            return say("fine now")
        case "sleep":
            time.sleep(0.3)
            return say(str(os.getpriority(os.PRIO_PROCESS, 0)))
        case "priorities":
            return say(f"{priorities[-1]} {os.getpriority(os.PRIO_PROCESS, 0)}")
        case "pid":
            return say(str(os.getpid()))
        case "environ":
            return say(os.environ.get("APRIEL_TEST_SECRET", "unknown"))
        case "modules":
            for load in JUDGES.values():
                loaded = load(Verify())
                loaded.warm_up()
                loaded.start()
            heavy = {"torch", "megatron", "vllm", "transformers"} & sys.modules.keys()
            return say(f"loaded {sorted(heavy)}")
    return say(text)


def accept(_: object) -> None:
    return None


def warm_up() -> None:
    priorities.append(os.getpriority(os.PRIO_PROCESS, 0))


if __name__ == "__main__":
    main({**JUDGES, "hostile": lambda config: Judge(judge, accept, warm_up)})
