"""`apriel status`, `logs` and `stop`: what became of a launch, and its end."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from apriel_mcore.cluster.folders import AttemptFolder, Launch
from apriel_mcore.cluster.record import Record, states_of
from apriel_mcore.cluster.transport import LoginNode
from apriel_mcore.errors import AprielError, InputError
from apriel_mcore.obs.runlog import events_in

_FOLLOW_S = 2.0


def status(record: Record, login: LoginNode) -> Iterator[str]:
    """A line a task: where it is in the queue, how its last attempt ended, its last step."""
    states = states_of(record, login)
    yield f"{record.name}: job {record.job}, {record.folder}"
    launch = _launch(record, login)
    for task in range(record.num_tasks):
        name = f"{record.job}_{task}" if launch.seeds else record.job
        run_dir = record.launch_folder.run_dir(launch, task)
        state = states.get(name, "not in the queue")
        attempt, step = _last_attempt(record, login, task), _last_step(run_dir.events, login)
        yield f"task {task}  {state}  {attempt}  {step}"
        yield f"        {run_dir.root}"


def logs(record: Record, login: LoginNode, *, process: str, follow: bool) -> Iterator[str]:
    """The end of a log of the newest attempt: `job`, `node-K`, or a file of the run's logs/ by its start.

    `follow` goes on with the log of the next attempt when there is one. InputError when there is none yet.
    """
    launch = _launch(record, login)
    task, name = _task_and_name(launch, process)
    path = _log(record, login, launch, task, name)
    if path is None:
        raise InputError(
            f"{record.name}: no log of {process!r}; ask for job, node-K, or a process of the run as "
            "trainer-rank0, launcher, server-0 (TASK/NAME for another task of an array)"
        )
    name = _same_process(path, name)
    yield f"==> {path}"
    seen = int(login.run("stat", "--format=%s", str(path)))
    yield login.run("tail", "-n", "40", str(path)).rstrip("\n")
    is_queued = follow
    while is_queued:
        time.sleep(_FOLLOW_S)
        is_queued = bool(states_of(record, login))
        text = login.run("tail", "-c", f"+{seen + 1}", str(path))
        if text:
            yield text.rstrip("\n")
        seen += len(text.encode())
        newest = _log(record, login, launch, task, name)
        if newest not in (None, path):
            path, seen, is_queued = newest, 0, True
            yield f"==> {path}"


def stop(record: Record, login: LoginNode, *, now: bool) -> str:
    """Save and stop, or with `now` cancel at once; either way it does not come back, unless the answer says
    that this could not be written down."""
    states = states_of(record, login)
    if not states:
        return f"{record.name}: job {record.job} is not in the queue"
    remark = _hold_back(record, login)
    running = [job for job, state in states.items() if state == "RUNNING"]
    for job in running if not now else []:
        login.run("scancel", "--batch", "--signal=USR1", job)
    for job in states if now else [job for job in states if job not in running]:
        login.run("scancel", job)
    how = "cancelled" if now else "asked to save and stop; what waited was cancelled"
    return f"{record.name}: {', '.join(states)} {how}{remark}"


def _hold_back(record: Record, login: LoginNode) -> str:
    """Keep all tasks from being requeued; what to tell the user when that failed."""
    marks = [str(record.launch_folder.held_back(task)) for task in range(record.num_tasks)]
    try:
        login.run("touch", *marks)
    except AprielError as error:
        return (
            f"\nit may come back to the queue, for what keeps it from that could not be written ({error}): "
            f"see `apriel status {record.name}`; `scancel {record.job}` ends it wherever it is"
        )
    return ""


def _launch(record: Record, login: LoginNode) -> Launch:
    text = login.read(record.launch_folder.launch)
    if not text:
        raise InputError(f"{record.name}: {record.folder} is gone from the cluster")
    return msgspec.json.decode(text, type=Launch)


def _attempts(record: Record, login: LoginNode, task: int) -> list[AttemptFolder]:
    """Of a task, oldest first; none before it has run."""
    folder = record.launch_folder.attempts
    names = [name.split(".") for name in _oldest_first(folder, login)]
    counts = sorted(int(count) for owner, count in names if owner == str(task))
    return [AttemptFolder(folder / f"{task}.{count}") for count in counts]


def _last_attempt(record: Record, login: LoginNode, task: int) -> str:
    attempts = _attempts(record, login, task)
    if not attempts:
        return "never ran"
    code = login.read(attempts[-1].exit_code)
    ended = f"ended with {code}" if code else "has not said how it ended"
    return f"attempt {len(attempts)} {ended}"


def _last_step(events: Path, login: LoginNode) -> str:
    if not login.succeeds("test", "-f", str(events)):
        return "no step yet"
    for event in reversed(events_in(login.run("tail", "-n", "200", str(events)))):
        if event["event"] == "step":
            return f"step {event['step']}, reward {event['reward_mean']:.3f}"
    return "no step yet"


def _task_and_name(launch: Launch, process: str) -> tuple[int, str]:
    """Of TASK/NAME, or of NAME, which is that of the first task. InputError for a task that there is not."""
    task, slash, name = process.rpartition("/")
    if not slash:
        return 0, name
    if not launch.seeds:
        raise InputError(
            f"{process}: {launch.name} was launched without --seeds and has no tasks; ask for {name}"
        )
    if task not in (tasks := [str(one) for one in range(len(launch.seeds))]):
        raise InputError(f"{process}: no task {task}; {launch.name} has {', '.join(tasks)}")
    return int(task), name


def _log(record: Record, login: LoginNode, launch: Launch, task: int, name: str) -> Path | None:
    """The newest; None when no process of this name has written anything."""
    if name.startswith("node-"):
        paths = [one.path / f"{name}.log" for one in reversed(_attempts(record, login, task))]
        return next((path for path in paths if login.succeeds("test", "-f", str(path))), None)
    if name == "job":
        folder, start, end = record.launch_folder.path, "job-", f"_{task}.log" if launch.seeds else ".log"
    else:
        folder, start, end = record.launch_folder.run_dir(launch, task).logs, name, ".log"
    found = [one for one in _oldest_first(folder, login) if one.startswith(start) and one.endswith(end)]
    return folder / found[-1] if found else None


def _same_process(path: Path, name: str) -> str:
    """The name that finds this process's log in a later attempt, and no other process's."""
    process, attempt, _ = path.name.partition("-attempt")
    return process + attempt if attempt else name


def _oldest_first(folder: Path, login: LoginNode) -> list[str]:
    """Names of files; none where there is no such folder yet."""
    return login.run("ls", "-tr", str(folder)).split() if login.succeeds("test", "-d", str(folder)) else []
