# Outputs in capitals are settings of the program: export TAXI_LAKE="$(terraform output -raw TAXI_LAKE)".

output "TAXI_LAKE" {
  value = "gs://${google_storage_bucket.lake.name}/${var.lake_prefix}"
}

output "TAXI_WAREHOUSE" {
  value = "bigquery://${var.project}/${google_bigquery_dataset.warehouse.dataset_id}?location=${var.location}"
}

output "credentials" {
  value = "If the program runs as ${google_service_account.program.email}, leave TAXI_GOOGLE_CREDENTIALS unset. Otherwise set it to the path of a key file of that account."
}

output "service_account" {
  value = google_service_account.program.email
}
