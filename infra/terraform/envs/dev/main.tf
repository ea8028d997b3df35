# Development: one NAT gateway, one small database, a few GPUs; everything can be destroyed.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Platform = "scaled-yolov4-dev", ManagedBy = "terraform" }
  }
}

# A token of the user who runs Terraform, fetched when needed and not stored.
provider "helm" {
  kubernetes = {
    host                   = module.platform.kubernetes.endpoint
    cluster_ca_certificate = base64decode(module.platform.kubernetes.certificate_authority)
    exec = {
      api_version = "client.authentication.k8s.io/v1"
      command     = "aws"
      args        = ["eks", "get-token", "--cluster-name", module.platform.kubernetes.name, "--region", var.region]
    }
  }
}

module "platform" {
  source = "../../modules/platform"

  name          = "scaled-yolov4-dev"
  cidr          = "10.10.0.0/16"
  nat_gateways  = 1
  allowed_cidrs = var.allowed_cidrs
  admins        = var.admins

  general_pool  = { instance_types = ["m7i.xlarge"], min_nodes = 2, max_nodes = 6, disk_gib = 100 }
  general_quota = { vcpus = 8, memory_gib = 32 }

  gpu_pools = {
    # One GPU: evaluation, export, latencies, tiny models.
    single = {
      instance_types    = ["g6.2xlarge"]
      accelerator       = "nvidia-l4"
      gpus              = 1
      gpu_memory_gib    = 24
      vcpus             = 8
      memory_gib        = 32
      local_storage_gib = 419
      capacity_type     = "ON_DEMAND"
      min_nodes         = 0
      max_nodes         = 2
      disk_gib          = 100
      zone              = null
    }
    # Four GPUs: training and evolution, on spot instances, which may be interrupted.
    train-spot = {
      instance_types    = ["g6.12xlarge"]
      accelerator       = "nvidia-l4"
      gpus              = 4
      gpu_memory_gib    = 24
      vcpus             = 48
      memory_gib        = 192
      local_storage_gib = 3500
      capacity_type     = "SPOT"
      min_nodes         = 0
      max_nodes         = 1
      disk_gib          = 100
      zone              = null
    }
  }

  database        = { instance_class = "db.t4g.medium", multi_az = false, backup_retention_days = 7 }
  mlflow_replicas = 1
  image_tag       = var.image_tag

  domain  = var.domain
  zone_id = var.zone_id

  alarm_emails        = var.alarm_emails
  monthly_budget_usd  = 2000
  deletion_protection = false
  log_retention_days  = 30
}
