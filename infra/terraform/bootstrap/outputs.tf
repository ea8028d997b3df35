output "backend" {
  description = "What backend.hcl of an environment holds."
  value       = "bucket = \"${module.state.name}\"\nregion = \"${var.region}\"\nkms_key_id = \"${module.key.arn}\"\n"
}
