variable "name" {
  description = "Name of the platform, which its resources carry as the tag Platform."
  type        = string
}

variable "alarm_emails" {
  description = "E-mail addresses notified of alarms and of the budget; each confirms by mail once."
  type        = set(string)

  validation {
    condition     = length(var.alarm_emails) > 0 && alltrue([for email in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "At least one mail address is needed."
  }
}

variable "monthly_budget_usd" {
  description = "What the platform may cost in a month; a message goes out at 80 % and when the forecast exceeds it."
  type        = number

  validation {
    condition     = var.monthly_budget_usd >= 100
    error_message = "monthly_budget_usd is at least 100: the platform costs more even when idle."
  }
}

variable "database_id" {
  description = "Identifier of the database that is watched."
  type        = string
}

variable "load_balancer" {
  description = "Load balancer that is watched, as CloudWatch names it."
  type        = string
}

variable "secret_store" {
  description = "Name of the ClusterSecretStore."
  type        = string
}

variable "secrets_key_arn" {
  description = "Key that encrypts Grafana's secret."
  type        = string
}

variable "metrics_retention_days" {
  description = "Days that Prometheus keeps metrics."
  type        = number
  default     = 30

  validation {
    condition     = var.metrics_retention_days >= 1 && var.metrics_retention_days <= 365
    error_message = "metrics_retention_days is between 1 and 365."
  }
}

variable "metrics_storage_gib" {
  description = "Disk of Prometheus."
  type        = number
  default     = 50

  validation {
    condition     = var.metrics_storage_gib >= 10 && var.metrics_storage_gib <= 1000
    error_message = "metrics_storage_gib is between 10 and 1000."
  }
}
