# What the program's environment takes: export TAXI_LAKE="$(terraform output -raw TAXI_LAKE)", and so on.

output "TAXI_LAKE" {
  value = "gs://${google_storage_bucket.lake.name}/${var.lake_prefix}"
}

output "TAXI_WAREHOUSE" {
  value = "bigquery://${var.project}/${google_bigquery_dataset.warehouse.dataset_id}?location=${var.location}"
}

output "TAXI_GOOGLE_CREDENTIALS" {
  value = "Leave it unset where the program runs as ${google_service_account.program.email}; else the path of a key file of that account."
}

output "service_account" {
  value = google_service_account.program.email
}
