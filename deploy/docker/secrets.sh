#!/usr/bin/env bash
# Creates the files with secrets that docker-compose.yaml requires, and writes the group that may use Docker into .env.
# Existing files and values are not changed.
#
#   deploy/docker/secrets.sh
#
# Only you can enter the folder of the secrets. The files in it are world-readable, because the containers' user does not
# exist on this machine and must read the mounted files.
set -euo pipefail

cd "$(dirname "$0")"
settings="$(cd ../.. && pwd)/.env"
umask 022
mkdir -p secrets
chmod 700 secrets
cd secrets

[ -e postgres_password ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >postgres_password
[ -e dagster_postgres_url ] ||
  printf 'postgresql+psycopg2://dagster:%s@postgres:5432/dagster' "$(cat postgres_password)" >dagster_postgres_url
# An empty file means that the secret is not used.
for optional in pgpassword taxi_google_credentials taxi_notify_urls; do
  [ -e "$optional" ] || : >"$optional"
done
[ -e proxy_users ] || echo "# one name and password hash per line" >proxy_users
chmod 644 ./*
echo "Secrets are in $PWD."

grep -qs '^DAGSTER_DOCKER_GROUP=' "$settings" && exit
group="${DAGSTER_DOCKER_GROUP:-}"
if [ -z "$group" ] && [ "$(uname)" != Linux ]; then
  group=0 # the group of Docker Desktop's socket inside a container
elif [ -z "$group" ]; then
  group="$(stat --dereference --format %g /var/run/docker.sock)" || {
    echo "Install Docker, or set DAGSTER_DOCKER_GROUP to the ID of the group that may use it; then run this again." >&2
    exit 1
  }
fi
[ -z "$(tail -c 1 "$settings" 2>/dev/null)" ] || echo >>"$settings"
echo "DAGSTER_DOCKER_GROUP=$group" >>"$settings"
echo "The group that may use Docker is in $settings."
