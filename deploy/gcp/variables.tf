variable "project" {
  description = "ID of an existing project with billing."
  type        = string
}

variable "bucket" {
  description = "Globally unique name for the lake's bucket."
  type        = string
}

variable "location" {
  description = "Location of bucket and dataset, such as EU, US or europe-west6. It cannot be changed later."
  type        = string
  default     = "EU"
}

variable "lake_prefix" {
  description = "Prefix of the lake's objects, without a leading or trailing slash. Compute logs are under logs/."
  type        = string
  default     = "lake"
}

variable "dataset" {
  description = "Name of the warehouse's dataset."
  type        = string
  default     = "taxi"
}

variable "service_account" {
  description = "Name of the program's service account: the part before the @."
  type        = string
  default     = "taxi-assets"
}

variable "noncurrent_days" {
  description = "Days for which a replaced object is kept, and paid for, as an old version."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "Set 1 or more, because the provider treats 0 as no condition."
  }
}

variable "soft_delete_days" {
  description = "Days for which a deleted object or an expired old version can be restored: 0, or 7 to 90."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "Set 0, or 7 to 90 days, as Cloud Storage requires."
  }
}
