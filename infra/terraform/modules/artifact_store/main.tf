# Buckets for data (DVC), pipelines (KFP, with Ray's checkpoints), the registry (MLflow) and access logs.

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

locals {
  # Account and region make the names unique in all of AWS.
  prefix = "${var.name}-${data.aws_caller_identity.current.account_id}-${data.aws_region.current.region}"

  log_bucket = "${local.prefix}-logs"

  # Who writes where: see the roles in kubeflow, kuberay and mlflow.
  prefixes = {
    pipelines = "pipelines" # in kfp: artifacts of pipeline runs
    training  = "training"  # in kfp: checkpoints of trainings
    registry  = "artifacts" # in mlflow: what MLflow's server keeps
    champions = "champions" # in mlflow: what serving reads
  }

  # What expires. Data versions and registered models never do.
  expirations = {
    dvc    = {}
    kfp    = { "${local.prefixes.pipelines}/" = var.pipeline_artifact_days, "${local.prefixes.training}/" = var.checkpoint_days }
    mlflow = {}
  }
}

module "key" {
  source = "../kms_key"

  name        = "${var.name}/artifacts"
  description = "Data, artifacts and models of ${var.name}"
}

# S3 and the load balancer write their access logs here, each below its own prefix.
data "aws_iam_policy_document" "logs" {
  statement {
    sid       = "AccessLogsOfS3"
    actions   = ["s3:PutObject"]
    resources = ["arn:aws:s3:::${local.log_bucket}/s3/*"]

    principals {
      type        = "Service"
      identifiers = ["logging.s3.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }

  statement {
    sid       = "AccessLogsOfTheLoadBalancer"
    actions   = ["s3:PutObject"]
    resources = ["arn:aws:s3:::${local.log_bucket}/alb/AWSLogs/${data.aws_caller_identity.current.account_id}/*"]

    principals {
      type        = "Service"
      identifiers = ["logdelivery.elasticloadbalancing.amazonaws.com"]
    }
  }
}

module "logs" {
  source = "../bucket"

  name             = local.log_bucket
  noncurrent_days  = 7
  expirations      = { "s3/" = var.log_retention_days, "alb/" = var.log_retention_days }
  policy_documents = [data.aws_iam_policy_document.logs.json]
}

module "buckets" {
  source   = "../bucket"
  for_each = local.expirations

  name            = "${local.prefix}-${each.key}"
  kms_key_arn     = module.key.arn
  logging         = { bucket = module.logs.name }
  noncurrent_days = var.noncurrent_days
  expirations     = each.value
}
