# The whole platform of one environment. What differs between environments is a variable here and a value in envs/.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  pool_label = "scaled-yolov4/pool"
}

# One key for logs of all kinds, one for secrets of all kinds.

module "logs_key" {
  source = "../kms_key"

  name        = "${var.name}/logs"
  description = "Logs of ${var.name}"

  service_grants = {
    "logs.${data.aws_region.current.region}.amazonaws.com" = {
      test     = "ArnLike"
      variable = "kms:EncryptionContext:aws:logs:arn"
      values = [
        "arn:${data.aws_partition.current.partition}:logs:${data.aws_region.current.region}:${data.aws_caller_identity.current.account_id}:log-group:*",
      ]
    }
  }
}

module "secrets_key" {
  source = "../kms_key"

  name        = "${var.name}/secrets"
  description = "Secrets of ${var.name}"
}

module "network" {
  source = "../network"

  name               = var.name
  cidr               = var.cidr
  nat_gateways       = var.nat_gateways
  log_retention_days = var.log_retention_days
  logs_key_arn       = module.logs_key.arn
}

module "cluster" {
  source = "../cluster"

  name                = var.name
  kubernetes_version  = var.kubernetes_version
  subnet_ids          = values(module.network.private_subnets)
  api_allowed_cidrs   = var.allowed_cidrs
  admins              = var.admins
  general_pool        = var.general_pool
  pool_label          = local.pool_label
  deletion_protection = var.deletion_protection
  log_retention_days  = var.log_retention_days
  logs_key_arn        = module.logs_key.arn
}

module "gpu_pools" {
  source = "../gpu_pools"

  cluster_name  = module.cluster.name
  node_role_arn = module.cluster.node_role_arn
  subnets       = module.network.private_subnets
  pool_label    = local.pool_label
  pools         = var.gpu_pools
}

module "artifact_store" {
  source = "../artifact_store"

  name               = var.name
  log_retention_days = var.log_retention_days
}

module "registry" {
  source = "../registry"

  name = var.name
}

module "database" {
  source = "../database"

  name                     = var.name
  vpc_id                   = module.network.vpc_id
  subnet_ids               = values(module.network.private_subnets)
  client_security_group_id = module.cluster.security_group_id
  instance_class           = var.database.instance_class
  multi_az                 = var.database.multi_az
  backup_retention_days    = var.database.backup_retention_days
  deletion_protection      = var.deletion_protection
  log_retention_days       = var.log_retention_days
  logs_key_arn             = module.logs_key.arn
}

module "secrets" {
  source = "../secrets"

  cluster_name = module.cluster.name
  secret_arns = {
    database = module.database.master_secret_arn
    mlflow   = module.mlflow.secret_arn
    grafana  = module.observability.secret_arn
  }
  key_arns = {
    database = module.database.key_arn
    secrets  = module.secrets_key.arn
  }
}

module "mlflow" {
  source = "../mlflow"

  name         = var.name
  cluster_name = module.cluster.name
  image        = "${module.registry.repository_url}:${var.image_tag}"
  replicas     = var.mlflow_replicas
  bucket = {
    name    = module.artifact_store.buckets["mlflow"].name
    arn     = module.artifact_store.buckets["mlflow"].arn
    prefix  = module.artifact_store.prefixes.registry
    key_arn = module.artifact_store.key_arn
  }
  database = {
    host              = module.database.host
    port              = module.database.port
    name              = module.database.database
    master_secret_arn = module.database.master_secret_arn
  }
  secret_store    = module.secrets.store
  secrets_key_arn = module.secrets_key.arn
  public_hosts    = ["mlflow.${var.domain}"]
}

module "kubeflow" {
  source = "../kubeflow"

  cluster_name       = module.cluster.name
  buckets            = module.artifact_store.buckets
  buckets_key_arn    = module.artifact_store.key_arn
  prefixes           = module.artifact_store.prefixes
  secret_store       = module.secrets.store
  mlflow_secret_name = module.mlflow.secret_name
  pushgateway_uri    = module.observability.pushgateway_uri
}

module "kuberay" {
  source = "../kuberay"

  cluster_name             = module.cluster.name
  namespace                = module.kubeflow.namespace
  pipeline_service_account = module.kubeflow.service_account
  pool_label               = local.pool_label
  pools                    = module.gpu_pools.pools
  general_quota            = var.general_quota
  buckets                  = module.artifact_store.buckets
  buckets_key_arn          = module.artifact_store.key_arn
  prefixes                 = module.artifact_store.prefixes
}

module "observability" {
  source = "../observability"

  name               = var.name
  alarm_emails       = var.alarm_emails
  monthly_budget_usd = var.monthly_budget_usd
  database_id        = module.database.id
  load_balancer      = module.ingress.load_balancer
  secret_store       = module.secrets.store
  secrets_key_arn    = module.secrets_key.arn
}

module "ingress" {
  source = "../ingress"

  name                      = var.name
  cluster_name              = module.cluster.name
  cluster_security_group_id = module.cluster.security_group_id
  vpc_id                    = module.network.vpc_id
  public_subnet_ids         = module.network.public_subnet_ids
  domain                    = var.domain
  zone_id                   = var.zone_id
  allowed_cidrs             = var.allowed_cidrs
  log_bucket                = module.artifact_store.log_bucket
  deletion_protection       = var.deletion_protection
  sites = {
    mlflow    = module.mlflow.service
    pipelines = module.kubeflow.service
    grafana   = module.observability.service
  }
}
