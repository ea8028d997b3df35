output "secret_arn" {
  description = "Secret with the `username` and `password` of Grafana's administrator."
  value       = aws_secretsmanager_secret.grafana.arn
}

output "service" {
  description = "Where Grafana is, for a way in from outside: namespace, service, its port, the port of the pods and the health page."
  value       = { namespace = local.namespace, service = "${local.release}-grafana", port = 80, pod_port = 3000, health = "/api/health" }

  depends_on = [helm_release.prometheus]
}

output "prometheus_uri" {
  description = "Address of Prometheus inside the cluster."
  value       = "http://${local.release}-prometheus.${local.namespace}.svc.cluster.local:9090"
}

output "pushgateway_uri" {
  description = "Where stages push their metrics, inside the cluster: SCALED_YOLOV4_PUSHGATEWAY."
  value       = "http://${local.pushgateway}.${local.namespace}.svc.cluster.local:9091"
}
