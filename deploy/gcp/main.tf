# The lake's bucket, the warehouse's dataset, and a service account with access to only these two. Creates no key, because
# Terraform would store it in the state. See README.md.

locals {
  labels = { application = "taxi_assets" }
  member = google_service_account.program.member
}

resource "google_project_service" "needed" {
  for_each = toset([
    "bigquery.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com", # for Workload Identity and impersonation
    "storage.googleapis.com",
  ])

  project = var.project
  service = each.value

  # Other programs in the project may use these APIs.
  disable_on_destroy = false
}

# --- the lake -------------------------------------------------------------------------------------------------------

resource "google_storage_bucket" "lake" {
  project  = var.project
  name     = var.bucket
  location = var.location
  labels   = local.labels

  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # A month is replaced by overwriting its objects.
  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = var.noncurrent_days
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }

  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 24 * 60 * 60
  }

  depends_on = [google_project_service.needed]
}

# --- the warehouse --------------------------------------------------------------------------------------------------

resource "google_bigquery_dataset" "warehouse" {
  project     = var.project
  dataset_id  = var.dataset
  location    = var.location
  description = "New York taxi trips: a table for each service, a partition for each published month."
  labels      = local.labels

  depends_on = [google_project_service.needed]
}

# --- service account and roles --------------------------------------------------------------------------------------

resource "google_service_account" "program" {
  project      = var.project
  account_id   = var.service_account
  display_name = "taxi_assets"
  description  = "Writes the lake gs://${var.bucket} and the dataset ${var.dataset}."

  depends_on = [google_project_service.needed]
}

# Overwriting an object requires storage.objects.delete, which Object Creator lacks.
resource "google_storage_bucket_iam_member" "objects" {
  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.objectUser"
  member = local.member
}

# storage.buckets.get, which Object User lacks: BigQuery needs it to load objects, and Dagster for compute logs.
resource "google_storage_bucket_iam_member" "bucket" {
  bucket = google_storage_bucket.lake.name
  role   = "roles/storage.legacyBucketReader"
  member = local.member
}

resource "google_bigquery_dataset_iam_member" "tables" {
  project    = var.project
  dataset_id = google_bigquery_dataset.warehouse.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.member
}

# Jobs belong to a project, not to a dataset. The role gives no access to data.
resource "google_project_iam_member" "jobs" {
  project = var.project
  role    = "roles/bigquery.jobUser"
  member  = local.member
}

# Large results are downloaded by the Storage Read API, whose sessions belong to a project, too.
resource "google_project_iam_member" "read_sessions" {
  project = var.project
  role    = "roles/bigquery.readSessionUser"
  member  = local.member
}
