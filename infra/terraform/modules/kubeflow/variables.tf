variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "kfp_version" {
  description = "Release of Kubeflow Pipelines: that of the client in requirements.lock."
  type        = string
  default     = "2.17.0"

  validation {
    condition     = can(regex("^2\\.[0-9]+\\.[0-9]+$", var.kfp_version))
    error_message = "kfp_version is a release of KFP 2, such as 2.17.0."
  }
}

variable "buckets" {
  description = "The buckets `dvc`, `kfp` and `mlflow`, as the module artifact_store gives them."
  type        = map(object({ name = string, arn = string }))

  validation {
    condition     = alltrue([for purpose in ["dvc", "kfp", "mlflow"] : contains(keys(var.buckets), purpose)])
    error_message = "buckets needs dvc, kfp and mlflow."
  }
}

variable "buckets_key_arn" {
  description = "Key that encrypts the buckets."
  type        = string
}

variable "secret_store" {
  description = "Name of the ClusterSecretStore."
  type        = string
}

variable "mlflow_secret_name" {
  description = "Secret with the `username` and `password` with which the steps reach MLflow."
  type        = string
}

variable "prefixes" {
  description = "Prefixes in the buckets, as the module artifact_store gives them."
  type = object({
    pipelines = string
    training  = string
    registry  = string
    champions = string
  })
}

variable "pushgateway_uri" {
  description = "Where steps push their metrics."
  type        = string
}
