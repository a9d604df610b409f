#!/bin/bash
# One attempt of one run: start a process on each node, pass requests to stop on, go back to the queue after
# those that were not the user's. Above and below the two marks this is the script that runs.
#@DIRECTIVES@
set -u
umask 077
#@SETTINGS@
task=${SLURM_ARRAY_TASK_ID:-0}
attempt=$LAUNCH/attempts/$task.${SLURM_RESTART_COUNT:-0}
mkdir -p "$attempt"
# What failed is tried again a few times; `apriel stop` leaves a mark that keeps its task from it.
failed() {
    echo "$1" >> "$LAUNCH/failures-$task"
    failures=$(wc -l < "$LAUNCH/failures-$task")
    echo "$(date -Is) failure $failures, $RETRIES are tried again"
    if [ "$failures" -le "$RETRIES" ]; then requeue; fi
}
requeue() {
    if [ -e "$LAUNCH/no-requeue-$task" ]; then return; fi
    echo "$(date -Is) back to the queue"
    trap '' TERM
    scontrol requeue "$SLURM_JOB_ID"
}
# What SLURM says of this job: `ended` is a cancel, or SLURM itself sends it back (preempted, a node lost);
# `unknown` is no answer.
state() {
    case $(scontrol --oneliner show job "$SLURM_JOB_ID" | grep "^JobId=$SLURM_JOB_ID ") in
        *" Reason=TimeLimit "*) echo limit ;;
        *" JobState=RUNNING "* | *" JobState=SIGNALING "* | *" JobState=STOPPED "*) echo running ;;
        "") echo unknown ;;
        *) echo ended ;;
    esac
}
# Back to the queue or not. $1: how the run ended (75: saved, to be continued; 2: the input is wrong, and will
# be), or TERM if it had not. The step may hear of a TERM first, from another node, and fail before this script
# is told: so SLURM is asked in any case, for what somebody cancelled must not come back.
settle() {
    settled=yes
    case "$1 $(state)" in
        "0 "* | "2 "*) ;;
        *" ended" | "TERM running" | "TERM unknown")
            echo "$(date -Is) ended by SLURM: cancelled, preempted, or a node was lost"
            ;;
        "75 "*) requeue ;;
        *" limit")
            echo "$(date -Is) the time limit came before the run had saved; raise batch.save_before_s"
            failed limit
            ;;
        *) failed "$1" ;;
    esac
}
# How the run ended, if it has: its own word, before that of the step.
code_or() {
    if [ -s "$attempt/exit-code" ]; then cat "$attempt/exit-code"; else echo "$1"; fi
}
# USR1: the time limit is near, the job is preempted, or `apriel stop`. The ranks poll for this file, because
# torchrun forwards no such signal. TERM: SLURM ends the job now. KILL follows soon and to all, so that this
# cannot wait for the step's end.
settled=no
step=
terminated() {
    trap '' TERM
    [ -z "$step" ] || kill -TERM "$step"
    settle "$(code_or TERM)"
    [ -n "$step" ] || exit 143
}
trap 'echo "$(date -Is) USR1: save and stop"; touch "$attempt/stop"' USR1
trap terminated TERM

scontrol show hostnames "$SLURM_JOB_NODELIST" > "$attempt/hostnames"
scontrol --oneliner show node "$SLURM_JOB_NODELIST" > "$attempt/nodes"
echo "$(date -Is) attempt ${SLURM_RESTART_COUNT:-0} of task $task on $SLURM_JOB_NODELIST: $attempt"

# Every count is said, for a step inherits SLURM_NTASKS and would start more.
srun --nodes="$NODES" --ntasks="$NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    --output="$attempt/node-%n.log" "${STEP_OPTIONS[@]}" \
    "$PYTHON" -m apriel_mcore.cluster.node "$LAUNCH" "$attempt" "$task" &
step=$!
# A signal that is trapped ends `wait`, not the step.
wait "$step"; status=$?
while kill -0 "$step" 2> /dev/null; do wait "$step"; status=$?; done

trap '' TERM
code=$(code_or "$status")
echo "$(date -Is) ended with $code (step $status)"
[ "$settled" = yes ] || settle "$code"
exit "$code"
