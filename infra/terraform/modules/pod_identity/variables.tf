variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "namespace" {
  description = "Namespace of the service account."
  type        = string
}

variable "service_account" {
  description = "Name of the service account; it may be created later."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.service_account))
    error_message = "A service account's name has 1 to 63 lower-case letters, digits and hyphens."
  }
}

variable "policy_json" {
  description = "What the pods may do, as a JSON policy document."
  type        = string
}
