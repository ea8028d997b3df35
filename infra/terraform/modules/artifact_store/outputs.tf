output "buckets" {
  description = "Name and ARN of each bucket: `dvc`, `kfp` and `mlflow`."
  value       = { for purpose, bucket in module.buckets : purpose => { name = bucket.name, arn = bucket.arn } }
}

output "key_arn" {
  description = "Key that encrypts the objects."
  value       = module.key.arn
}

output "log_bucket" {
  description = "Name of the bucket of access logs."
  value       = module.logs.name
}

output "prefixes" {
  description = "Prefixes in the buckets: `pipelines` and `training` in kfp, `registry` and `champions` in mlflow."
  value       = local.prefixes

  depends_on = [module.buckets]
}
