variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "node_role_arn" {
  description = "Role of the nodes."
  type        = string
}

variable "subnets" {
  description = "Private subnets by availability zone."
  type        = map(string)
}

variable "pool_label" {
  description = "Label that names the pool of a node."
  type        = string
}

variable "pools" {
  description = <<-EOT
    The pools by name. `gpus` of `gpu_memory_gib` each, `vcpus`, `memory_gib` and `local_storage_gib` are what one node of the smallest of `instance_types` has; all types of a pool have equally many GPUs of one kind.
    `zone` keeps a pool in one availability zone, which a job of several nodes wants: traffic between zones is slow and costs. Null spreads it over all.
  EOT
  type = map(object({
    instance_types    = list(string)
    accelerator       = string
    gpus              = number
    gpu_memory_gib    = number
    vcpus             = number
    memory_gib        = number
    local_storage_gib = number
    capacity_type     = string
    min_nodes         = number
    max_nodes         = number
    disk_gib          = number
    zone              = string
  }))

  validation {
    condition     = alltrue([for name in keys(var.pools) : can(regex("^[a-z][a-z0-9-]{0,29}$", name)) && name != "general"])
    error_message = "A pool's name has up to 30 lower-case letters, digits and hyphens, and `general` is taken."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : length(pool.instance_types) > 0])
    error_message = "Each pool names at least one instance type."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : contains(["ON_DEMAND", "SPOT"], pool.capacity_type)])
    error_message = "capacity_type is ON_DEMAND or SPOT."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.gpus >= 1 && pool.gpus <= 16])
    error_message = "gpus is between 1 and 16."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.gpu_memory_gib >= 8 && pool.gpu_memory_gib <= 1024])
    error_message = "gpu_memory_gib, of one GPU, is between 8 and 1024."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.vcpus >= 1 && pool.memory_gib >= 1 && pool.local_storage_gib >= 0])
    error_message = "vcpus and memory_gib are at least 1, local_storage_gib at least 0."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.min_nodes >= 0 && pool.max_nodes >= max(1, pool.min_nodes)])
    error_message = "Each pool needs 0 <= min_nodes <= max_nodes and max_nodes of at least 1."
  }

  validation {
    condition     = alltrue([for pool in values(var.pools) : pool.disk_gib >= 60 && pool.disk_gib <= 16384])
    error_message = "disk_gib is between 60 (the CUDA image and the system need it) and 16384."
  }
}
