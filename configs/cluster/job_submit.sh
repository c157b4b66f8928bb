#!/usr/bin/env bash
# Submit a campaign to a running Ray cluster; its driver runs on the cluster's head.
#
#   export RAY_API_SERVER_ADDRESS=http://head:8265 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.ray/auth_token
#   configs/cluster/job_submit.sh /shared/campaigns/geotext1652.yaml --output-dir /shared/output/geotext1652
#
# Uploads this checkout to the cluster, except what git ignores; data and results are in a folder that all nodes see.
# The same command continues the campaign.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ray job submit --working-dir . -- python -m search.cli search "$@" --address auto
