variable "name" {
  description = "Prefix of the buckets' names; account and region follow."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,24}$", var.name))
    error_message = "The name has 2 to 25 lower-case letters, digits and hyphens, so that a bucket's whole name fits."
  }
}

variable "noncurrent_days" {
  description = "Days that replaced and deleted objects can be brought back."
  type        = number
  default     = 90

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 3650
    error_message = "noncurrent_days is between 1 and 3650."
  }
}

variable "pipeline_artifact_days" {
  description = "Days that the artifacts of a pipeline run are kept; registered models are kept in MLflow's bucket."
  type        = number
  default     = 180

  validation {
    condition     = var.pipeline_artifact_days >= 1 && var.pipeline_artifact_days <= 3650
    error_message = "pipeline_artifact_days is between 1 and 3650."
  }
}

variable "checkpoint_days" {
  description = "Days that training checkpoints are kept, from which a killed training resumes."
  type        = number
  default     = 30

  validation {
    condition     = var.checkpoint_days >= 1 && var.checkpoint_days <= 3650
    error_message = "checkpoint_days is between 1 and 3650."
  }
}

variable "log_retention_days" {
  description = "Days that access logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = var.log_retention_days >= 1 && var.log_retention_days <= 3650
    error_message = "log_retention_days is between 1 and 3650."
  }
}
