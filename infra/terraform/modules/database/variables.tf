variable "name" {
  description = "Identifier of the database instance."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,61}$", var.name))
    error_message = "The identifier has 2 to 62 lower-case letters, digits and hyphens."
  }
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in two availability zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS needs subnets in two availability zones at least."
  }
}

variable "client_security_group_id" {
  description = "Security group of those who may connect."
  type        = string
}

variable "instance_class" {
  description = "Size of the instance, such as db.t4g.medium."
  type        = string

  validation {
    condition     = can(regex("^db\\.[a-z0-9]+\\.[a-z0-9]+$", var.instance_class))
    error_message = "instance_class is a class of RDS, such as db.t4g.medium."
  }
}

variable "storage_gib" {
  description = "Initial storage; it grows automatically to five times that."
  type        = number
  default     = 20

  validation {
    condition     = var.storage_gib >= 20 && var.storage_gib <= 13000
    error_message = "storage_gib is between 20 and 13000."
  }
}

variable "multi_az" {
  description = "Whether there is a standby instance in another availability zone."
  type        = bool
}

variable "backup_retention_days" {
  description = "Days that daily backups are kept; any second within them can be restored."
  type        = number
  default     = 14

  validation {
    condition     = var.backup_retention_days >= 7 && var.backup_retention_days <= 35
    error_message = "backup_retention_days is between 7 and 35."
  }
}

variable "deletion_protection" {
  description = "Whether RDS refuses to delete the instance."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that the database's logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 731], var.log_retention_days)
    error_message = "log_retention_days is one of 30, 60, 90, 180, 365 and 731."
  }
}

variable "logs_key_arn" {
  description = "Key that encrypts the logs."
  type        = string
}
