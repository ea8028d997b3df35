# What goes on, what goes wrong and what it costs: Prometheus and Grafana in the cluster, alarms and a budget in AWS.

data "aws_caller_identity" "current" {}

# Alarms and the budget speak to one topic.

module "key" {
  source = "../kms_key"

  name        = "${var.name}/alarms"
  description = "Messages of alarms and budget of ${var.name}"

  service_grants = { for service in ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"] : service => {
    test = "StringEquals", variable = "aws:SourceAccount", values = [data.aws_caller_identity.current.account_id]
  } }
}

resource "aws_sns_topic" "alarms" {
  name              = "${var.name}-alarms"
  kms_master_key_id = module.key.arn
}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "AlarmsAndBudgetOfThisAccount"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alarms.arn]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com", "budgets.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sns_topic_policy" "alarms" {
  arn    = aws_sns_topic.alarms.arn
  policy = data.aws_iam_policy_document.alarms.json
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.key
}

locals {
  alarms = {
    database-cpu = {
      says       = "The database has been busy above 80 % for 15 minutes"
      namespace  = "AWS/RDS", metric = "CPUUtilization", statistic = "Average"
      dimensions = { DBInstanceIdentifier = var.database_id }
      comparison = "GreaterThanThreshold", threshold = 80
    }
    database-storage = {
      says       = "The database has less than 5 GiB of storage left"
      namespace  = "AWS/RDS", metric = "FreeStorageSpace", statistic = "Minimum"
      dimensions = { DBInstanceIdentifier = var.database_id }
      comparison = "LessThanThreshold", threshold = 5 * pow(1024, 3)
    }
    database-memory = {
      says       = "The database has less than 256 MiB of memory left"
      namespace  = "AWS/RDS", metric = "FreeableMemory", statistic = "Minimum"
      dimensions = { DBInstanceIdentifier = var.database_id }
      comparison = "LessThanThreshold", threshold = 256 * pow(1024, 2)
    }
    ingress-errors = {
      says       = "MLflow, the pipelines or Grafana answer with errors"
      namespace  = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", statistic = "Sum"
      dimensions = { LoadBalancer = var.load_balancer }
      comparison = "GreaterThanThreshold", threshold = 20
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  dimensions          = each.value.dimensions
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 300
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The budget counts what carries the platform's tag, once it is activated as a cost allocation tag in the account.
resource "aws_budgets_budget" "monthly" {
  name         = "${var.name}-monthly"
  budget_type  = "COST"
  limit_amount = tostring(var.monthly_budget_usd)
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  cost_filter {
    name   = "TagKeyValue"
    values = [format("user:Platform$%s", var.name)]
  }

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }

    content {
      notification_type         = notification.key
      threshold                 = notification.value
      threshold_type            = "PERCENTAGE"
      comparison_operator       = "GREATER_THAN"
      subscriber_sns_topic_arns = [aws_sns_topic.alarms.arn]
    }
  }

  depends_on = [aws_sns_topic_policy.alarms]
}

# Prometheus and Grafana. Grafana's password is made by AWS and never in Terraform's state.

locals {
  namespace   = "monitoring"
  release     = "kube-prometheus-stack"
  pushgateway = "prometheus-pushgateway"
  admin       = "grafana-admin"
}

ephemeral "aws_secretsmanager_random_password" "grafana" {
  password_length     = 32
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "grafana" {
  #checkov:skip=CKV2_AWS_57:rotated by raising secret_string_wo_version; Grafana takes the password over at its next start
  name                    = "${var.name}/grafana"
  description             = "Administrator of Grafana"
  kms_key_id              = var.secrets_key_arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret_version" "grafana" {
  secret_id                = aws_secretsmanager_secret.grafana.id
  secret_string_wo_version = 1
  secret_string_wo = jsonencode({
    username = "admin"
    password = ephemeral.aws_secretsmanager_random_password.grafana.random_password
  })
}

resource "helm_release" "grafana_admin" {
  name             = local.admin
  namespace        = local.namespace
  create_namespace = true
  chart            = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    {
      apiVersion = "external-secrets.io/v1"
      kind       = "ExternalSecret"
      metadata   = { name = local.admin }
      spec = {
        refreshInterval = "1h"
        secretStoreRef  = { kind = "ClusterSecretStore", name = var.secret_store }
        dataFrom        = [{ extract = { key = aws_secretsmanager_secret.grafana.name } }]
      }
    },
  ] })]

  depends_on = [aws_secretsmanager_secret_version.grafana]
}

resource "helm_release" "prometheus" {
  name       = local.release
  namespace  = local.namespace
  repository = "https://prometheus-community.github.io/helm-charts"
  chart      = "kube-prometheus-stack"
  version    = "88.5.3"
  timeout    = 900

  values = [yamlencode({
    grafana = {
      admin = { existingSecret = local.admin, userKey = "username", passwordKey = "password" }
    }
    prometheus = {
      prometheusSpec = {
        retention = "${var.metrics_retention_days}d"
        # Every ServiceMonitor, PodMonitor and rule of the cluster counts, whoever installed it.
        serviceMonitorSelectorNilUsesHelmValues = false
        podMonitorSelectorNilUsesHelmValues     = false
        ruleSelectorNilUsesHelmValues           = false
        storageSpec = { volumeClaimTemplate = { spec = {
          accessModes = ["ReadWriteOnce"]
          resources   = { requests = { storage = "${var.metrics_storage_gib}Gi" } }
        } } }
      }
    }
    # These run inside EKS's control plane, where nothing can scrape them.
    kubeControllerManager = { enabled = false }
    kubeEtcd              = { enabled = false }
    kubeScheduler         = { enabled = false }
  })]

  depends_on = [helm_release.grafana_admin]
}

# Stages are batch processes: they push what they have to say, and Prometheus scrapes it here.
resource "helm_release" "pushgateway" {
  name       = local.pushgateway
  namespace  = local.namespace
  repository = "https://prometheus-community.github.io/helm-charts"
  chart      = "prometheus-pushgateway"
  version    = "3.8.0"

  values = [yamlencode({
    resources      = { requests = { cpu = "50m", memory = "64Mi" }, limits = { memory = "64Mi" } }
    serviceMonitor = { enabled = true, namespace = local.namespace, honorLabels = true }
  })]

  depends_on = [helm_release.prometheus]
}

# What is shown and what raises an alarm. KubeRay gives the pods of every Ray cluster a port for metrics; there our own
# carry Ray's prefix, which they lose, so that they have one name wherever a training runs.
resource "helm_release" "views" {
  name      = "scaled-yolov4-observability"
  namespace = local.namespace
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    {
      apiVersion = "v1"
      kind       = "ConfigMap"
      metadata   = { name = "scaled-yolov4-dashboard", labels = { grafana_dashboard = "1" } }
      data       = { "scaled-yolov4.json" = file("${path.module}/../../../observability/dashboard.json") }
    },
    {
      apiVersion = "monitoring.coreos.com/v1"
      kind       = "PrometheusRule"
      metadata   = { name = "scaled-yolov4" }
      spec       = yamldecode(file("${path.module}/../../../observability/rules.yaml"))
    },
    {
      apiVersion = "monitoring.coreos.com/v1"
      kind       = "PodMonitor"
      metadata   = { name = "ray" }
      spec = {
        namespaceSelector = { any = true }
        selector          = { matchLabels = { "ray.io/is-ray-node" = "yes" } }
        podTargetLabels   = ["ray.io/cluster"]
        podMetricsEndpoints = [{
          port = "metrics"
          metricRelabelings = [{
            sourceLabels = ["__name__"]
            regex        = "ray_(scaled_yolov4_.+)"
            targetLabel  = "__name__"
            replacement  = "$1"
          }]
        }]
      }
    },
  ] })]

  depends_on = [helm_release.prometheus]
}

# GPU utilisation, memory, temperature and errors, from every GPU node.
resource "helm_release" "dcgm" {
  name       = "dcgm-exporter"
  namespace  = local.namespace
  repository = "https://nvidia.github.io/dcgm-exporter/helm-charts"
  chart      = "dcgm-exporter"
  version    = "4.8.2"

  values = [yamlencode({
    nodeSelector   = { "nvidia.com/gpu.present" = "true" }
    tolerations    = [{ key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" }]
    serviceMonitor = { enabled = true, honorLabels = true }
  })]

  depends_on = [helm_release.prometheus]
}
