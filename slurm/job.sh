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
# What SLURM says of this job; `ended` is a cancel or a lost node.
state() {
    case $(scontrol --oneliner show job "$SLURM_JOB_ID" | grep "^JobId=$SLURM_JOB_ID ") in
        *" Reason=TimeLimit "*) echo limit ;;
        "" | *" JobState=RUNNING "*) echo running ;;
        *) echo ended ;;
    esac
}
# Back to the queue or not. $1: how the run ended (75: saved, to be continued; 2: the input is wrong, and will
# be), or TERM. The step may hear of a TERM first, from another node, and fail before this script is told: so
# SLURM is asked in any case, for what somebody cancelled must not come back.
settle() {
    settled=yes
    trap '' TERM
    case "$1 $(state)" in
        "0 "* | "2 "*) ;;
        *" ended") echo "$(date -Is) TERM: cancelled" ;;
        "75 "*) requeue ;;
        *" limit")
            echo "$(date -Is) TERM: the time limit came before the run had saved; raise batch.save_before_s"
            failed limit
            ;;
        "TERM "*) echo "$(date -Is) TERM: cancelled" ;;
        *) failed "$1" ;;
    esac
}
# USR1: the time limit is near, the job is preempted, or `apriel stop`. The ranks poll for this file, because
# torchrun forwards no such signal. TERM: SLURM ends the job now. KILL follows soon and to all, so that this
# cannot wait for the step's end.
settled=no
step=
terminated() {
    trap '' TERM
    [ -z "$step" ] || kill -TERM "$step"
    settle TERM
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

# The step's own status says whether it ran; how the run ended is in the file.
code=$status
if [ -s "$attempt/exit-code" ]; then code=$(cat "$attempt/exit-code"); fi
echo "$(date -Is) ended with $code (step $status)"
[ "$settled" = yes ] || settle "$code"
exit "$code"
