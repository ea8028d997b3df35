variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "namespace" {
  description = "Namespace of the jobs, which must exist: that of the pipelines."
  type        = string
}

variable "pipeline_service_account" {
  description = "Service account of the pipeline steps, which start Ray jobs."
  type        = string
}

variable "pool_label" {
  description = "Label that names the pool of a node."
  type        = string
}

variable "pools" {
  description = "The GPU pools, as the module gpu_pools gives them."
  type = map(object({
    node_selector   = map(string)
    taint           = string
    gpus_per_node   = number
    vcpus_per_node  = number
    memory_per_node = number
    max_nodes       = number
  }))
}

variable "general_quota" {
  description = "What Ray's heads may use together of the general pool."
  type        = object({ vcpus = number, memory_gib = number })

  validation {
    condition     = var.general_quota.vcpus >= 1 && var.general_quota.memory_gib >= 1
    error_message = "Both of general_quota are at least 1."
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

variable "prefixes" {
  description = "Prefixes in the buckets, as the module artifact_store gives them."
  type = object({
    pipelines = string
    training  = string
    registry  = string
    champions = string
  })
}
