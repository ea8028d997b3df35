variable "name" {
  description = "Name of the cluster and prefix of what belongs to it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,29}$", var.name))
    error_message = "The name has 2 to 30 lower-case letters, digits and hyphens: roles and databases are named after it."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes, such as 1.35."
  type        = string
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is a minor version, such as 1.35."
  }
}

variable "subnet_ids" {
  description = "Private subnets of the control plane's interfaces and of the general pool."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "EKS needs subnets in two availability zones at least."
  }
}

variable "api_allowed_cidrs" {
  description = "Networks from which the API answers over the internet; none makes it private."
  type        = set(string)

  validation {
    condition     = alltrue([for cidr in var.api_allowed_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Each is a network such as 203.0.113.0/24, and none is the whole internet."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles or users that administer the cluster. Whoever runs Terraform must be among them."
  type        = set(string)

  validation {
    condition     = length(var.admins) > 0 && alltrue([for arn in var.admins : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/", arn))])
    error_message = "At least one ARN of an IAM role or user is needed."
  }
}

variable "general_pool" {
  description = "Nodes for everything without a GPU."
  type = object({
    instance_types = list(string)
    min_nodes      = number
    max_nodes      = number
    disk_gib       = number
  })

  validation {
    condition     = var.general_pool.min_nodes >= 1 && var.general_pool.max_nodes >= var.general_pool.min_nodes
    error_message = "general_pool needs 1 <= min_nodes <= max_nodes."
  }

  validation {
    condition     = var.general_pool.disk_gib >= 50 && var.general_pool.disk_gib <= 16384
    error_message = "general_pool.disk_gib is between 50 and 16384."
  }
}

variable "pool_label" {
  description = "Label that names the pool of a node."
  type        = string
}

variable "deletion_protection" {
  description = "Whether EKS refuses to delete the cluster."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that logs of the control plane are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 731], var.log_retention_days)
    error_message = "log_retention_days is one of 30, 60, 90, 180, 365 and 731."
  }
}

variable "logs_key_arn" {
  description = "Key that encrypts the logs of the control plane."
  type        = string
}
