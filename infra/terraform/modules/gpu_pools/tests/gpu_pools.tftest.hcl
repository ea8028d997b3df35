mock_provider "aws" {
  mock_resource "aws_eks_node_group" {
    defaults = {
      resources = [{ autoscaling_groups = [{ name = "group" }], remote_access_security_group_id = "" }]
    }
  }
}

mock_provider "helm" {}

variables {
  cluster_name  = "test"
  node_role_arn = "arn:aws:iam::123456789012:role/node"
  subnets       = { eu-west-1a = "subnet-a", eu-west-1b = "subnet-b" }
  pool_label    = "scaled-yolov4/pool"
  pools = {
    big = {
      instance_types    = ["p4d.24xlarge"]
      accelerator       = "nvidia-a100"
      gpus              = 8
      gpu_memory_gib    = 40
      vcpus             = 96
      memory_gib        = 1152
      local_storage_gib = 7600
      capacity_type     = "SPOT"
      min_nodes         = 0
      max_nodes         = 2
      disk_gib          = 200
      zone              = "eu-west-1b"
    }
  }
}

run "a_pool_at_zero_says_what_its_nodes_would_be" {
  command = apply

  assert {
    condition     = aws_eks_node_group.this["big"].scaling_config[0].desired_size == 0
    error_message = "The pool begins with no node."
  }

  assert {
    condition     = aws_eks_node_group.this["big"].subnet_ids == toset(["subnet-b"])
    error_message = "The pool stays in its zone."
  }

  assert {
    condition     = aws_autoscaling_group_tag.template["big/gpus"].tag[0].value == "8"
    error_message = "The autoscaler knows of the GPUs."
  }

  assert {
    condition     = aws_autoscaling_group_tag.template["big/taint"].tag[0].value == "present:NoSchedule"
    error_message = "The autoscaler knows of the taint."
  }

  assert {
    condition     = aws_autoscaling_group_tag.template["big/label/scaled-yolov4/pool"].tag[0].value == "big"
    error_message = "The autoscaler knows the pool's label."
  }

  assert {
    condition     = output.pools["big"].gpus_per_node * output.pools["big"].max_nodes == 16
    error_message = "Two nodes of eight GPUs."
  }
}

run "refuses_an_unknown_capacity" {
  command = plan

  variables {
    pools = {
      odd = {
        instance_types    = ["g6.2xlarge"]
        accelerator       = "nvidia-l4"
        gpus              = 1
        gpu_memory_gib    = 24
        vcpus             = 8
        memory_gib        = 32
        local_storage_gib = 419
        capacity_type     = "RESERVED"
        min_nodes         = 0
        max_nodes         = 1
        disk_gib          = 100
        zone              = null
      }
    }
  }

  expect_failures = [var.pools]
}
