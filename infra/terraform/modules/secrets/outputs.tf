output "store" {
  description = "Name of the ClusterSecretStore, known once it is there."
  value       = "aws"

  depends_on = [helm_release.store]
}
