# External Secrets: turns secrets of AWS Secrets Manager into Kubernetes secrets, and follows their rotation.

data "aws_region" "current" {}

locals {
  service = "external-secrets"
}

data "aws_iam_policy_document" "read" {
  statement {
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = values(var.secret_arns)
  }

  statement {
    actions   = ["kms:Decrypt"]
    resources = values(var.key_arns)

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${data.aws_region.current.region}.amazonaws.com"]
    }
  }
}

module "identity" {
  source = "../pod_identity"

  cluster_name    = var.cluster_name
  namespace       = local.service
  service_account = local.service
  policy_json     = data.aws_iam_policy_document.read.json
}

resource "helm_release" "this" {
  name             = local.service
  namespace        = local.service
  create_namespace = true
  repository       = "https://charts.external-secrets.io"
  chart            = "external-secrets"
  version          = "2.9.0"

  values = [yamlencode({
    serviceAccount = { name = local.service }
    replicaCount   = 2
    leaderElect    = true
  })]

  depends_on = [module.identity]
}

resource "helm_release" "store" {
  name      = "secret-store"
  namespace = local.service
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    {
      apiVersion = "external-secrets.io/v1"
      kind       = "ClusterSecretStore"
      metadata   = { name = "aws" }
      spec       = { provider = { aws = { service = "SecretsManager", region = data.aws_region.current.region } } }
    },
  ] })]

  depends_on = [helm_release.this]
}
