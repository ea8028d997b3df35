variable "name" {
  description = "Name of the platform, prefix of the secret's name."
  type        = string
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "image" {
  description = "The project's image, with its tag."
  type        = string

  validation {
    condition     = can(regex("^[^:@]+[:@][^:@]+", var.image)) && !endswith(var.image, ":latest")
    error_message = "The image needs a tag of its own or a digest."
  }
}

variable "replicas" {
  description = "Servers at a time."
  type        = number
  default     = 1

  validation {
    condition     = var.replicas >= 1 && var.replicas <= 10
    error_message = "replicas is between 1 and 10."
  }
}

variable "bucket" {
  description = "The bucket of the artifacts, their prefix in it and the key that encrypts it."
  type = object({
    name    = string
    arn     = string
    prefix  = string
    key_arn = string
  })
}

variable "database" {
  description = "The PostgreSQL database, and the secret with its `username` and `password`."
  type = object({
    host              = string
    port              = number
    name              = string
    master_secret_arn = string
  })
}

variable "secret_store" {
  description = "Name of the ClusterSecretStore."
  type        = string
}

variable "secrets_key_arn" {
  description = "Key that encrypts the server's secret."
  type        = string
}

variable "public_hosts" {
  description = "Host names under which the server is also reached, from outside the cluster."
  type        = list(string)
  default     = []
}
