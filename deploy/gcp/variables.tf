variable "project" {
  description = "The project's id. It must exist, and have billing."
  type        = string
}

variable "bucket" {
  description = "The lake's bucket. The name must be free in all of Cloud Storage."
  type        = string
}

variable "location" {
  description = "Where bucket and dataset are, such as EU, US or europe-west6. Neither can be moved later."
  type        = string
  default     = "EU"
}

variable "lake_prefix" {
  description = "What the lake's objects begin with, without slashes around it. Compute logs are beside it: logs/."
  type        = string
  default     = "lake"
}

variable "dataset" {
  description = "The warehouse's dataset."
  type        = string
  default     = "taxi"
}

variable "service_account" {
  description = "The account the program runs as: what stands before the @."
  type        = string
  default     = "taxi-assets"
}

variable "noncurrent_days" {
  description = "How long a replaced object can be had back as an old version. Until then it is paid for."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "The provider takes 0 for no condition at all: say 1 or more."
  }
}

variable "soft_delete_days" {
  description = "How long a deleted object, or an old version past its days, can be restored: 0, or 7 to 90."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "Cloud Storage takes 0, or 7 to 90 days."
  }
}
