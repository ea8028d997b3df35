variable "name" {
  description = "Name of the VPC and prefix of what belongs to it."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC; pods take theirs from it too."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && can(regex("/1[6-9]$", var.cidr))
    error_message = "cidr is an IPv4 network of /16 to /19, such as 10.0.0.0/16."
  }
}

variable "zones" {
  description = "Letters of the availability zones to spread over. EKS and RDS need two."
  type        = list(string)
  default     = ["a", "b", "c"]

  validation {
    condition     = contains([2, 3], length(distinct(var.zones))) && alltrue([for letter in var.zones : can(regex("^[a-z]$", letter))])
    error_message = "zones holds 2 or 3 different letters."
  }
}

variable "nat_gateways" {
  description = "NAT gateways, one a zone: as many as zones survive the loss of one, a single one is cheaper."
  type        = number
  default     = 1

  validation {
    condition     = var.nat_gateways >= 1 && var.nat_gateways <= length(var.zones)
    error_message = "nat_gateways is between 1 and the number of zones."
  }
}

variable "interface_endpoints" {
  description = "AWS services reached inside the VPC, by the last part of their endpoint's name."
  type        = set(string)
  default = [
    "autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks-auth", "elasticloadbalancing", "logs", "secretsmanager", "sts",
  ]
}

variable "log_retention_days" {
  description = "Days that flow logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 180, 365, 731], var.log_retention_days)
    error_message = "log_retention_days is one of 30, 60, 90, 180, 365 and 731."
  }
}

variable "logs_key_arn" {
  description = "Key that encrypts the flow logs."
  type        = string
}
