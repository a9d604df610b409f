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
# USR1: the time limit is near, the job is preempted, or `apriel stop`. The ranks poll for this file, because
# torchrun forwards no such signal. TERM: the time limit came before the run had saved, or somebody cancelled
# the job, which must not come back; SLURM says which. Its KILL follows soon and to all, so that this cannot
# wait for the step's end.
settled=no
step=
terminated() {
    trap '' TERM
    settled=yes
    [ -z "$step" ] || kill -TERM "$step"
    if scontrol --oneliner show job "$SLURM_JOB_ID" | grep -q "^JobId=$SLURM_JOB_ID .*Reason=TimeLimit "; then
        echo "$(date -Is) TERM: the time limit came before the run had saved; raise batch.save_before_s"
        failed limit
    else
        echo "$(date -Is) TERM: cancelled"
    fi
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
# 75: saved, to be continued. 2: the input is wrong, and will be.
if [ "$settled" = no ]; then
    case $code in
        0 | 2) ;;
        75) requeue ;;
        *) failed "$code" ;;
    esac
fi
exit "$code"
