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
# Starts a Ray cluster on the nodes of one job, and a campaign on it. From a checkout with .venv that all nodes see:
#
#   sbatch configs/cluster/slurm.sh configs/campaigns/geotext1652.yaml --output-dir /shared/output/geotext1652
#
# Two minutes before the time limit, running epochs finish, everything is kept, and the job is requeued and continues.
# A cancelled job stops the same way but is not requeued; submitting it again continues the campaign.
set -euo pipefail

port=${RAY_PORT:-6379}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')

# One token for all nodes of this job, in a folder that they see, readable by its owner only.
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
sleep 10 # until the head is up
for host in "${hosts[@]:1}"; do
    start_node "$host" --address="$address:$port"
done

.venv/bin/python -m search.cli search "$@" --address "$address:$port" --nodes "${#hosts[@]}" &
driver=$!
again=no
trap 'again=yes; kill -TERM "$driver"' USR1
trap 'kill -TERM "$driver"' TERM INT
code=0
while kill -0 "$driver" 2>/dev/null; do # a signal interrupts `wait` before the driver has ended
    code=0
    wait "$driver" || code=$?
done
if [[ $again == yes ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
