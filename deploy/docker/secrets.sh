#!/usr/bin/env bash
# Makes the files that docker-compose.yaml takes secrets from; those that are there stay as they are.
#
#   deploy/docker/secrets.sh
#
# Only their owner can enter the folder. The files are readable so that the containers' user, who is nobody here, can
# read what is mounted.
set -euo pipefail

folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
chmod 700 "$folder"
cd "$folder"
umask 022

[ -e postgres_password ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >postgres_password
[ -e dagster_postgres_url ] ||
  printf 'postgresql+psycopg2://dagster:%s@postgres:5432/dagster' "$(cat postgres_password)" >dagster_postgres_url
# Empty: not used.
for optional in pgpassword taxi_google_credentials taxi_notify; do
  [ -e "$optional" ] || : >"$optional"
done
[ -e proxy_users ] || echo "# a name and a password's hash on each line" >proxy_users
chmod 644 ./*
echo "Secrets are in $PWD."
