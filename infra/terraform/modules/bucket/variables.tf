variable "name" {
  description = "Name of the bucket, unique in all of AWS."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "A bucket name has 3 to 63 lower-case letters, digits and hyphens."
  }
}

variable "kms_key_arn" {
  description = "Key that encrypts the objects; null encrypts with S3's own key."
  type        = string
  default     = null
}

variable "logging" {
  description = "Where accesses are logged, as `{ bucket = NAME }`; null logs none."
  type        = object({ bucket = string })
  default     = null
}

variable "noncurrent_days" {
  description = "Days that replaced and deleted objects can be brought back."
  type        = number
  default     = 90

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 3650
    error_message = "noncurrent_days is between 1 and 3650."
  }
}

variable "expirations" {
  description = "Days after which objects below a prefix end, by prefix; an empty prefix is the whole bucket."
  type        = map(number)
  default     = {}

  validation {
    condition     = alltrue([for days in values(var.expirations) : days >= 1 && days <= 3650])
    error_message = "Each expiration is between 1 and 3650 days."
  }
}

variable "policy_documents" {
  description = "More statements of the bucket policy, as JSON policy documents."
  type        = list(string)
  default     = []
}
