#!/usr/bin/env bash
#SBATCH --job-name=crossmodal-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# A Ray cluster over the nodes of one job, and a campaign on it. From a checkout that all nodes see, with .venv made:
#
#   sbatch configs/cluster/slurm.sh configs/campaigns/geotext1652.yaml --output-dir /shared/output/geotext1652
#
# Two minutes before the time is up, running epochs end, everything is kept, and the job queues again and continues.
# A cancelled job ends as well, but does not queue; the same line sent again continues it.
set -euo pipefail

port=${RAY_PORT:-6379}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# One token for all nodes of this job, on a folder that they see, readable by its owner alone.
RAY_AUTH_TOKEN_PATH=$(mktemp "$PWD/.ray_token.XXXXXX")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
trap 'kill $(jobs -p) 2>/dev/null; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

start_node() { # HOST OPTION...
    local host=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$host" \
        .venv/bin/ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" "$@" &
}

start_node "$head" --head --node-ip-address="$address" --port="$port" --include-dashboard=false
sleep 10 # the head first
for host in "${hosts[@]:1}"; do
    start_node "$host" --address="$address:$port"
done

.venv/bin/python -m search.cli search "$@" --address "$address:$port" --nodes "${#hosts[@]}" &
driver=$!
again=no
trap 'again=yes; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM INT
code=0
while kill -0 "$driver" 2>/dev/null; do # a signal ends `wait` before the driver has ended
    code=0
    wait "$driver" || code=$?
done
if [[ $again == yes ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
