#!/usr/bin/env bash
# Runs the checks that need the real Google Cloud: verify.py runs the steps in two buckets and a dataset that it creates,
# prints a table of the results and the cost, and removes the buckets and the dataset. See README.md.
#
#   PROJECT=my-project LOCATION=EU deploy/gcp/verify.sh
set -euo pipefail

PROJECT="${PROJECT:?PROJECT: the ID of a project for tests}"
LOCATION="${LOCATION:-EU}"

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [[ ! -x .venv/bin/python ]]; then
  echo 'There is no .venv. Run "make setup" first.' >&2
  exit 1
fi
# exec, so that an interruption reaches the process that removes the resources.
exec .venv/bin/python deploy/gcp/verify.py "$PROJECT" "$LOCATION"
