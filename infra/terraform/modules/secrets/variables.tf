variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "secret_arns" {
  description = "The secrets that may be read, by any name."
  type        = map(string)

  validation {
    condition     = length(var.secret_arns) > 0
    error_message = "At least one secret is to be read."
  }
}

variable "key_arns" {
  description = "The keys that encrypt them, by any name."
  type        = map(string)

  validation {
    condition     = length(var.key_arns) > 0
    error_message = "At least one key is needed to read them."
  }
}
