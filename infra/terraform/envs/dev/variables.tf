variable "region" {
  description = "AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region is a name such as us-east-1."
  }
}

variable "allowed_cidrs" {
  description = "Networks from which people work: the Kubernetes API and the pages answer them only."
  type        = set(string)
}

variable "admins" {
  description = "ARNs of the IAM roles or users that administer the cluster. Whoever runs Terraform must be among them."
  type        = set(string)
}

variable "image_tag" {
  description = "Tag of the project's image in the platform's repository; `make image` prints it."
  type        = string
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
