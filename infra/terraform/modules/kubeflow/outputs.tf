output "namespace" {
  description = "Namespace of the pipelines, known once it exists."
  value       = local.namespace

  depends_on = [terraform_data.manifests]
}

output "service_account" {
  description = "Service account of the pipeline steps."
  value       = local.service_account
}

output "service" {
  description = "Where the pages are, for a way in from outside: namespace, service, its port, the port of the pods and the health page."
  value       = { namespace = local.namespace, service = "ml-pipeline-ui", port = 80, pod_port = 3000, health = "/" }

  depends_on = [terraform_data.manifests]
}

output "api_uri" {
  description = "Address of the API inside the cluster."
  value       = "http://ml-pipeline.${local.namespace}.svc.cluster.local:8888"
}
