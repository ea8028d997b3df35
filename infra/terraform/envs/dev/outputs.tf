output "platform" {
  description = "Everything that a program needs to know to use or to check the platform; nothing in it is secret."
  value       = module.platform.platform
}
