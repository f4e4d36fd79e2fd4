#!/bin/sh
# Starts the container's command with secrets from files: the content of the file in TAXI_NOTIFY_URLS_FILE becomes the
# variable TAXI_NOTIFY_URLS. So no secret is in an image, in a compose file or in the output of `docker inspect`. An empty
# file leaves the variable as it is.
set -eu

for name in $(env | sed -n 's/^\(\(TAXI\|DAGSTER\)_[A-Z0-9_]*\|PGPASSWORD\)_FILE=.*/\1/p'); do
  eval "file=\${${name}_FILE}"
  [ -n "$file" ] || continue
  if [ ! -r "$file" ] || [ -d "$file" ]; then
    echo "${name}_FILE names $file, which user $(id -u) cannot read. Run deploy/docker/secrets.sh, which creates the files that compose expects." >&2
    exit 1
  fi
  value="$(cat "$file")"
  [ -z "$value" ] || export "$name=$value"
done

exec "$@"
