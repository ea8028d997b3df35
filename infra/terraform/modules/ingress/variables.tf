variable "name" {
  description = "Name of the load balancer, of the user pool and of its login page."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,21}$", var.name))
    error_message = "The name has 2 to 22 lower-case letters, digits and hyphens: target groups are named after it."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "cluster_security_group_id" {
  description = "Security group of the nodes."
  type        = string
}

variable "vpc_id" {
  description = "Id of the VPC."
  type        = string
}

variable "public_subnet_ids" {
  description = "Public subnets in two availability zones at least."
  type        = list(string)

  validation {
    condition     = length(var.public_subnet_ids) >= 2
    error_message = "A load balancer needs subnets in two availability zones at least."
  }
}

variable "domain" {
  description = "Domain below which each site has its name, such as dev.example.org."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+\\.)+[a-z]{2,}$", var.domain))
    error_message = "The domain is a name such as dev.example.org."
  }
}

variable "zone_id" {
  description = "Route 53 zone that holds the domain."
  type        = string

  validation {
    condition     = can(regex("^Z[A-Z0-9]+$", var.zone_id))
    error_message = "A zone's id begins with Z."
  }
}

variable "allowed_cidrs" {
  description = "Networks that may reach the load balancer."
  type        = set(string)

  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0)) && !endswith(cidr, "/0")])
    error_message = "Each is a network such as 203.0.113.0/24, and none is the whole internet."
  }
}

variable "sites" {
  description = "What is reached, by the first part of its host name."
  type = map(object({
    namespace = string
    service   = string
    port      = number
    pod_port  = number
    health    = string
  }))

  validation {
    condition     = alltrue([for name in keys(var.sites) : can(regex("^[a-z]{1,9}$", name))])
    error_message = "A site's name has up to 9 lower-case letters: its target group is named after it."
  }
}

variable "log_bucket" {
  description = "Bucket of the access logs."
  type        = string
}

variable "deletion_protection" {
  description = "Whether AWS refuses to delete the load balancer and the users."
  type        = bool
}
