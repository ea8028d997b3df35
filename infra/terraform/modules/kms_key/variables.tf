variable "name" {
  description = "Alias of the key, without the prefix `alias/`."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9/_-]{1,250}$", var.name))
    error_message = "An alias has 1 to 250 letters, digits, slashes, underscores and hyphens."
  }
}

variable "description" {
  description = "What the key encrypts."
  type        = string
}

variable "service_grants" {
  description = "AWS services that use the key themselves (by service principal), each with the condition that ties it to this account."
  type = map(object({
    test     = string
    variable = string
    values   = list(string)
  }))
  default = {}
}
