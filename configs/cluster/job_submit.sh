#!/usr/bin/env bash
# Hand a campaign to a Ray cluster that is already running; its driver then runs on the cluster's head.
#
#   export RAY_API_SERVER_ADDRESS=http://head:8265 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.ray/auth_token
#   configs/cluster/job_submit.sh /shared/campaigns/geotext1652.yaml --output-dir /shared/output/geotext1652
#
# This checkout travels to the cluster (what git ignores stays here); data and results lie on a folder all nodes see.
# The same line again continues the campaign.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ray job submit --working-dir . -- python -m search.cli search "$@" --address auto
