output "queue" {
  description = "Name of the LocalQueue that Ray jobs name in their label kueue.x-k8s.io/queue-name."
  value       = local.queue

  depends_on = [helm_release.queues]
}

output "service_account" {
  description = "Service account of the pods of a training."
  value       = "training"

  depends_on = [helm_release.accounts]
}

output "storage_uri" {
  description = "Where a training keeps its checkpoints."
  value       = "s3://${var.buckets["kfp"].name}/${var.prefixes.training}"
}

output "champions_uri" {
  description = "Where a server of models reads champions: the parameter `promote.champions`."
  value       = "s3://${var.buckets["mlflow"].name}/${var.prefixes.champions}"
}
