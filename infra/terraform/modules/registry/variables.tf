variable "name" {
  description = "Name of the repository."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]{1,254}$", var.name))
    error_message = "A repository's name has 2 to 255 lower-case letters, digits, slashes, underscores and hyphens."
  }
}

variable "images_kept" {
  description = "Newest images that are kept."
  type        = number
  default     = 50

  validation {
    condition     = var.images_kept >= 2 && var.images_kept <= 1000
    error_message = "images_kept is between 2 (a rollback needs the one before) and 1000."
  }
}
