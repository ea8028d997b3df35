variable "name" {
  description = "Name of the platform in this environment, such as scaled-yolov4-dev; everything is named after it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,21}$", var.name))
    error_message = "The name has 2 to 22 lower-case letters, digits and hyphens."
  }
}

variable "cidr" {
  description = "Addresses of the VPC."
  type        = string
}

variable "nat_gateways" {
  description = "NAT gateways: one, or one for each of the three availability zones."
  type        = number

  validation {
    condition     = contains([1, 3], var.nat_gateways)
    error_message = "nat_gateways is 1 or 3."
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

variable "allowed_cidrs" {
  description = "Networks from which people work: the Kubernetes API and the pages answer them only."
  type        = set(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Each is a network such as 203.0.113.0/24, and none is the whole internet."
  }
}

variable "admins" {
  description = "ARNs of the IAM roles or users that administer the cluster. Whoever runs Terraform must be among them."
  type        = set(string)
}

variable "general_pool" {
  description = "Nodes for everything without a GPU."
  type = object({
    instance_types = list(string)
    min_nodes      = number
    max_nodes      = number
    disk_gib       = number
  })
}

variable "general_quota" {
  description = "What Ray's heads may use together of the general pool."
  type        = object({ vcpus = number, memory_gib = number })
}

variable "gpu_pools" {
  description = "GPU pools by name; modules/gpu_pools says what the fields mean."
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
}

variable "database" {
  description = "Size and safety of MLflow's database."
  type = object({
    instance_class        = string
    multi_az              = bool
    backup_retention_days = number
  })
}

variable "mlflow_replicas" {
  description = "MLflow servers at a time."
  type        = number

  validation {
    condition     = var.mlflow_replicas >= 1 && var.mlflow_replicas <= 10
    error_message = "mlflow_replicas is between 1 and 10."
  }
}

variable "image_tag" {
  description = "Tag of the project's image in the platform's repository; `make image` prints it."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest"
    error_message = "image_tag is a tag of its own, not latest: tags of the repository never move."
  }
}

variable "domain" {
  description = "Domain of the pages, such as dev.example.org: mlflow, pipelines and grafana are its subdomains."
  type        = string
}

variable "zone_id" {
  description = "Route 53 zone that holds the domain."
  type        = string
}

variable "alarm_emails" {
  description = "E-mail addresses notified of alarms and of the budget."
  type        = set(string)
}

variable "monthly_budget_usd" {
  description = "What the platform may cost in a month."
  type        = number
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the cluster, the database, the load balancer and the users."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that logs are kept."
  type        = number

  validation {
    condition     = contains([30, 60, 90, 180, 365, 731], var.log_retention_days)
    error_message = "log_retention_days is one of 30, 60, 90, 180, 365 and 731."
  }
}
