# Pools of GPU nodes that scale from zero when a pod requests a GPU.
#
# Managed node groups with the Cluster Autoscaler, rather than Karpenter: a pool is then a plain AWS resource that is
# planned, reviewed and checked like the rest, its quota in Kueue follows from the same row, and a job of several nodes
# gets nodes of one kind. What Karpenter does better, choosing among many instance types, does not suit a training job.

locals {
  gpu_taint = "nvidia.com/gpu"

  labels = { for name, pool in var.pools : name => {
    (var.pool_label)                  = name
    "nvidia.com/gpu.present"          = "true"           # where the device plugin runs
    "k8s.amazonaws.com/accelerator"   = pool.accelerator # by which the autoscaler knows a node whose GPUs are not up yet
    "eks.amazonaws.com/capacityType"  = pool.capacity_type
    "scaled-yolov4/gpus-per-node"     = tostring(pool.gpus)
    "scaled-yolov4/local-storage-gib" = tostring(pool.local_storage_gib)
  } }

  # While the pool has no nodes, the autoscaler reads their properties from these tags.
  template_tags = merge([for name, pool in var.pools : merge(
    { for label, value in local.labels[name] : "${name}/label/${label}" => {
      pool = name, key = "k8s.io/cluster-autoscaler/node-template/label/${label}", value = value
    } },
    { "${name}/taint" = {
      pool = name, key = "k8s.io/cluster-autoscaler/node-template/taint/${local.gpu_taint}", value = "present:NoSchedule"
    } },
    { "${name}/gpus" = {
      pool = name, key = "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu", value = tostring(pool.gpus)
    } },
    { "${name}/disk" = {
      pool  = name
      key   = "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage"
      value = "${max(pool.local_storage_gib, pool.disk_gib)}Gi"
    } },
  )]...)

  # Instance stores, where the type has them, become one fast disk for images, pods and their scratch space.
  node_config = <<-EOT
    MIME-Version: 1.0
    Content-Type: multipart/mixed; boundary="BOUNDARY"

    --BOUNDARY
    Content-Type: application/node.eks.aws

    apiVersion: node.eks.aws/v1alpha1
    kind: NodeConfig
    spec:
      instance:
        localStorage:
          strategy: RAID0

    --BOUNDARY--
  EOT
}

resource "aws_launch_template" "this" {
  for_each = var.pools

  name      = "${var.cluster_name}-${each.key}"
  user_data = base64encode(local.node_config)

  # IMDSv2 with one hop: pods cannot ask for the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_gib
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.cluster_name}-${each.key}" }
  }
}

resource "aws_eks_node_group" "this" {
  for_each = var.pools

  cluster_name    = var.cluster_name
  node_group_name = each.key
  node_role_arn   = var.node_role_arn
  subnet_ids      = [for zone, subnet in var.subnets : subnet if each.value.zone == null || each.value.zone == zone]
  ami_type        = "AL2023_x86_64_NVIDIA"
  capacity_type   = each.value.capacity_type
  instance_types  = each.value.instance_types

  # EKS sets the label of the capacity type itself.
  labels = { for label, value in local.labels[each.key] : label => value if !startswith(label, "eks.amazonaws.com/") }

  taint {
    key    = local.gpu_taint
    value  = "present"
    effect = "NO_SCHEDULE"
  }

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min_nodes
    max_size     = each.value.max_nodes
    desired_size = each.value.min_nodes
  }

  update_config {
    max_unavailable = 1
  }

  # A node whose GPU fails is drained and replaced.
  node_repair_config {
    enabled = true
  }

  # The autoscaler sets the number.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }
}

resource "aws_autoscaling_group_tag" "template" {
  for_each = local.template_tags

  autoscaling_group_name = aws_eks_node_group.this[each.value.pool].resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.value.key
    value               = each.value.value
    propagate_at_launch = false
  }
}

resource "helm_release" "device_plugin" {
  name             = "nvidia-device-plugin"
  namespace        = "nvidia-device-plugin"
  create_namespace = true
  repository       = "https://nvidia.github.io/k8s-device-plugin"
  chart            = "nvidia-device-plugin"
  version          = "0.20.0"
}
