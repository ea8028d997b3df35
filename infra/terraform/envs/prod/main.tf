# Production: redundant, protected from deletion, GPUs for the whole family.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Platform = "scaled-yolov4-prod", ManagedBy = "terraform" }
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

  name          = "scaled-yolov4-prod"
  cidr          = "10.20.0.0/16"
  nat_gateways  = 3
  allowed_cidrs = var.allowed_cidrs
  admins        = var.admins

  general_pool  = { instance_types = ["m7i.2xlarge"], min_nodes = 3, max_nodes = 10, disk_gib = 100 }
  general_quota = { vcpus = 32, memory_gib = 128 }

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
      max_nodes         = 8
      disk_gib          = 100
      zone              = null
    }
    # Four GPUs: the CSP models.
    train-4 = {
      instance_types    = ["g6.12xlarge"]
      accelerator       = "nvidia-l4"
      gpus              = 4
      gpu_memory_gib    = 24
      vcpus             = 48
      memory_gib        = 192
      local_storage_gib = 3500
      capacity_type     = "ON_DEMAND"
      min_nodes         = 0
      max_nodes         = 4
      disk_gib          = 100
      zone              = null
    }
    # The same on spot instances, which may be interrupted: evolution, whose trials are short.
    train-4-spot = {
      instance_types    = ["g6.12xlarge"]
      accelerator       = "nvidia-l4"
      gpus              = 4
      gpu_memory_gib    = 24
      vcpus             = 48
      memory_gib        = 192
      local_storage_gib = 3500
      capacity_type     = "SPOT"
      min_nodes         = 0
      max_nodes         = 4
      disk_gib          = 100
      zone              = null
    }
    # Eight GPUs: P5, YOLOv7 and YOLOv7-X.
    train-8 = {
      instance_types    = ["g6.48xlarge"]
      accelerator       = "nvidia-l4"
      gpus              = 8
      gpu_memory_gib    = 24
      vcpus             = 192
      memory_gib        = 768
      local_storage_gib = 7000
      capacity_type     = "ON_DEMAND"
      min_nodes         = 0
      max_nodes         = 2
      disk_gib          = 100
      zone              = null
    }
    # Eight GPUs with NVLink and more memory, nodes in one zone: P6, W6 and, over two nodes, P7, E6, D6 and E6E.
    train-8-large = {
      instance_types    = ["p4d.24xlarge"]
      accelerator       = "nvidia-a100"
      gpus              = 8
      gpu_memory_gib    = 40
      vcpus             = 96
      memory_gib        = 1152
      local_storage_gib = 7600
      capacity_type     = "ON_DEMAND"
      min_nodes         = 0
      max_nodes         = 2
      disk_gib          = 200
      zone              = "${var.region}a"
    }
  }

  database        = { instance_class = "db.m7g.large", multi_az = true, backup_retention_days = 35 }
  mlflow_replicas = 2
  image_tag       = var.image_tag

  domain  = var.domain
  zone_id = var.zone_id

  alarm_emails        = var.alarm_emails
  monthly_budget_usd  = 20000
  deletion_protection = true
  log_retention_days  = 365
}
