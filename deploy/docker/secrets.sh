#!/usr/bin/env bash
# Makes what docker-compose.yaml takes and nobody can know beforehand: the files with secrets, and in .env the group that
# may speak with Docker. What is there stays as it is.
#
#   deploy/docker/secrets.sh
#
# Only their owner can enter the secrets' folder. The files are readable so that the containers' user, who is nobody
# here, can read what is mounted.
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
# Empty: not used.
for optional in pgpassword taxi_google_credentials taxi_notify_urls; do
  [ -e "$optional" ] || : >"$optional"
done
[ -e proxy_users ] || echo "# a name and a password's hash on each line" >proxy_users
chmod 644 ./*
echo "Secrets are in $PWD."

grep -qs '^DAGSTER_DOCKER_GROUP=' "$settings" && exit
group="${DAGSTER_DOCKER_GROUP:-}"
if [ -z "$group" ] && [ "$(uname)" != Linux ]; then
  group=0 # Docker Desktop's socket belongs to it, seen from a container
elif [ -z "$group" ]; then
  group="$(stat --dereference --format %g /var/run/docker.sock)" || {
    echo "Install Docker, or say DAGSTER_DOCKER_GROUP, the number of the group that may use it; then run this again." >&2
    exit 1
  }
fi
[ -z "$(tail -c 1 "$settings" 2>/dev/null)" ] || echo >>"$settings"
echo "DAGSTER_DOCKER_GROUP=$group" >>"$settings"
echo "The group that may speak with Docker is in $settings."
