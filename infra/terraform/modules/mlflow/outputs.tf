output "secret_arn" {
  description = "Secret with the administrator's `username` and `password`."
  value       = aws_secretsmanager_secret.server.arn
}

output "secret_name" {
  description = "Name of that secret, by which others in the cluster take it over."
  value       = aws_secretsmanager_secret.server.name
}

output "tracking_uri" {
  description = "Address of the server inside the cluster: MLFLOW_TRACKING_URI."
  value       = "http://${local.host}:${local.port}"
}

output "service" {
  description = "Where the server is, for a way in from outside: namespace, service, its port, the port of the pods and the health page."
  value       = { namespace = local.namespace, service = local.name, port = local.port, pod_port = local.port, health = "/health" }
}
