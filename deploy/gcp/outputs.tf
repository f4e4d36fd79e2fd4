# Outputs in capitals are variables of the program: export TAXI_LAKE="$(terraform output -raw TAXI_LAKE)".

output "TAXI_LAKE" {
  value = "gs://${google_storage_bucket.lake.name}/${var.lake_prefix}"
}

output "TAXI_WAREHOUSE" {
  value = "bigquery://${var.project}/${google_bigquery_dataset.warehouse.dataset_id}?location=${var.location}"
}

output "credentials" {
  value = "Leave TAXI_GOOGLE_CREDENTIALS unset where the program runs as ${google_service_account.program.email}; else it is the path of a key file of that account."
}

output "service_account" {
  value = google_service_account.program.email
}
