#!/usr/bin/env bash
# Creates the resources of main.tf with gcloud and bq. Run it again after a change or a failure.
#
#   PROJECT=my-project BUCKET=my-taxi-lake deploy/gcp/create.sh
set -euo pipefail

PROJECT="${PROJECT:?PROJECT: the project id}"
BUCKET="${BUCKET:?BUCKET: a globally unique name for the bucket}"
LOCATION="${LOCATION:-EU}"
LAKE_PREFIX="${LAKE_PREFIX:-lake}"
DATASET="${DATASET:-taxi}"
SERVICE_ACCOUNT="${SERVICE_ACCOUNT:-taxi-assets}"
NONCURRENT_DAYS="${NONCURRENT_DAYS:-30}"
SOFT_DELETE_DAYS="${SOFT_DELETE_DAYS:-7}"

email="$SERVICE_ACCOUNT@$PROJECT.iam.gserviceaccount.com"
member="serviceAccount:$email"

gcloud services enable --project="$PROJECT" \
  bigquery.googleapis.com cloudresourcemanager.googleapis.com iam.googleapis.com iamcredentials.googleapis.com \
  storage.googleapis.com

# --- the lake --------------------------------------------------------------------------------------------------------
if ! gcloud storage buckets describe "gs://$BUCKET" --format=none 2>/dev/null; then
  gcloud storage buckets create "gs://$BUCKET" --project="$PROJECT" --location="$LOCATION" \
    --uniform-bucket-level-access --public-access-prevention
fi

lifecycle="$(mktemp)"
trap 'rm -f "$lifecycle"' EXIT
cat >"$lifecycle" <<JSON
{
  "rule": [
    {"action": {"type": "Delete"}, "condition": {"daysSinceNoncurrentTime": $NONCURRENT_DAYS}},
    {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 7}}
  ]
}
JSON
gcloud storage buckets update "gs://$BUCKET" \
  --uniform-bucket-level-access --public-access-prevention --versioning \
  --lifecycle-file="$lifecycle" --soft-delete-duration="${SOFT_DELETE_DAYS}d" \
  --update-labels=application=taxi_assets

# --- the warehouse ---------------------------------------------------------------------------------------------------
bq --project_id="$PROJECT" --location="$LOCATION" mk --force --dataset \
  --description="New York taxi trips: a table for each service, a partition for each published month." \
  --label=application:taxi_assets "$PROJECT:$DATASET"

# --- service account and roles ---------------------------------------------------------------------------------------
if ! gcloud iam service-accounts describe "$email" --project="$PROJECT" --format=none 2>/dev/null; then
  gcloud iam service-accounts create "$SERVICE_ACCOUNT" --project="$PROJECT" --display-name=taxi_assets \
    --description="Writes the lake gs://$BUCKET and the dataset $DATASET."
fi

# Overwriting an object requires storage.objects.delete, which Object Creator lacks.
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
  --member="$member" --role=roles/storage.objectUser --format=none
# storage.buckets.get, which Object User lacks: BigQuery needs it to load objects, and Dagster for compute logs.
gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" \
  --member="$member" --role=roles/storage.legacyBucketReader --format=none
# SQL, because bq add-iam-policy-binding does not fully support datasets.
bq --project_id="$PROJECT" --location="$LOCATION" query --nouse_legacy_sql \
  "GRANT \`roles/bigquery.dataEditor\` ON SCHEMA \`$PROJECT.$DATASET\` TO \"$member\""
# Jobs belong to a project, not to a dataset. The role gives no access to data.
gcloud projects add-iam-policy-binding "$PROJECT" \
  --member="$member" --role=roles/bigquery.jobUser --condition=None --format=none
# Large results are downloaded by the Storage Read API, whose sessions belong to a project, too.
gcloud projects add-iam-policy-binding "$PROJECT" \
  --member="$member" --role=roles/bigquery.readSessionUser --condition=None --format=none

cat <<TEXT

Set these variables for the program, which runs as $email:
TAXI_LAKE='gs://$BUCKET/$LAKE_PREFIX'
TAXI_WAREHOUSE='bigquery://$PROJECT/$DATASET?location=$LOCATION'
TEXT
