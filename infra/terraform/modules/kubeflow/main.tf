# Kubeflow Pipelines from its own manifests: there is no official Helm chart. kubectl applies them with a small overlay
# that sends the artifacts of every run to S3; the databases and the store of compiled pipelines stay in the cluster.

data "aws_region" "current" {}

locals {
  namespace       = "kubeflow" # the manifests name it themselves
  service_account = "pipeline-runner"

  overlay = templatefile("${path.module}/templates/kustomization.yaml.tftpl", {
    version   = var.kfp_version
    namespace = local.namespace
    root      = "s3://${var.buckets["kfp"].name}/${var.prefixes.pipelines}"
    region    = data.aws_region.current.region
  })
}

# Terraform applies the manifests again when the version or the overlay changes. Only destroying the cluster
# removes them, so that a mistake here cannot delete the history of all runs.
resource "terraform_data" "manifests" {
  triggers_replace = [var.kfp_version, sha256(local.overlay), var.cluster_name]

  provisioner "local-exec" {
    command = "${path.module}/scripts/apply.sh"

    environment = {
      CLUSTER = var.cluster_name
      REGION  = data.aws_region.current.region
      VERSION = var.kfp_version
      OVERLAY = local.overlay
    }
  }
}

# Pipeline steps read the data, read and write artifacts below their own prefix and publish champions.
data "aws_iam_policy_document" "runner" {
  statement {
    sid       = "FindData"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["dvc"].arn]
  }

  statement {
    sid       = "FindArtifacts"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["kfp"].arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefixes.pipelines}/*", "${var.prefixes.training}/*"]
    }
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = ["${var.buckets["dvc"].arn}/*", "${var.buckets["kfp"].arn}/${var.prefixes.training}/*"]
  }

  statement {
    sid       = "KeepArtifacts"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.buckets["kfp"].arn}/${var.prefixes.pipelines}/*"]
  }

  statement {
    sid       = "PublishChampions"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.buckets["mlflow"].arn}/${var.prefixes.champions}/*"]
  }

  statement {
    sid       = "FindChampions"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["mlflow"].arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefixes.champions}/*"]
    }
  }

  # An interrupted multipart upload is looked up and resumed.
  statement {
    sid       = "FindUploads"
    actions   = ["s3:ListBucketMultipartUploads"]
    resources = [var.buckets["kfp"].arn, var.buckets["mlflow"].arn]
  }

  statement {
    sid       = "UseTheKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.buckets_key_arn]
  }
}

# The web UI only reads artifacts.
data "aws_iam_policy_document" "ui" {
  statement {
    sid       = "ReadArtifacts"
    actions   = ["s3:GetObject"]
    resources = ["${var.buckets["kfp"].arn}/${var.prefixes.pipelines}/*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [var.buckets_key_arn]
  }
}

module "identity" {
  source = "../pod_identity"
  for_each = {
    (local.service_account) = data.aws_iam_policy_document.runner.json
    ml-pipeline-ui          = data.aws_iam_policy_document.ui.json
  }

  cluster_name    = var.cluster_name
  namespace       = local.namespace
  service_account = each.key
  policy_json     = each.value
}

# The secret with the environment variables of pipeline steps. S3 needs no keys here: pods have roles.
# The address in it is not secret; it is here because steps and Ray pods read their variables from one place.
resource "helm_release" "secret" {
  name      = "pipeline-secret"
  namespace = local.namespace
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    {
      apiVersion = "external-secrets.io/v1"
      kind       = "ExternalSecret"
      metadata   = { name = "scaled-yolov4" }
      spec = {
        refreshInterval = "1h"
        secretStoreRef  = { kind = "ClusterSecretStore", name = var.secret_store }
        target          = { template = { mergePolicy = "Merge", data = { SCALED_YOLOV4_PUSHGATEWAY = var.pushgateway_uri } } }
        data = [
          { secretKey = "MLFLOW_TRACKING_USERNAME", remoteRef = { key = var.mlflow_secret_name, property = "username" } },
          { secretKey = "MLFLOW_TRACKING_PASSWORD", remoteRef = { key = var.mlflow_secret_name, property = "password" } },
        ]
      }
    },
  ] })]

  depends_on = [terraform_data.manifests]
}
