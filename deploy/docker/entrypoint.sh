#!/bin/sh
# Starts what the container is for, with secrets read from files: TAXI_NOTIFY_URLS_FILE=/run/secrets/taxi_notify_urls gives the
# process TAXI_NOTIFY_URLS. So they stand in no image, no compose file and no `docker inspect`. An empty file is no secret:
# what the environment says stays.
set -eu

for name in $(env | sed -n 's/^\(\(TAXI\|DAGSTER\)_[A-Z0-9_]*\|PGPASSWORD\)_FILE=.*/\1/p'); do
  eval "file=\${${name}_FILE}"
  [ -n "$file" ] || continue
  if [ ! -r "$file" ] || [ -d "$file" ]; then
    echo "${name}_FILE names $file, which user $(id -u) cannot read. deploy/docker/secrets.sh makes the files that compose expects." >&2
    exit 1
  fi
  value="$(cat "$file")"
  [ -z "$value" ] || export "$name=$value"
done

exec "$@"
