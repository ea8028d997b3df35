mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

mock_provider "helm" {}

variables {
  name                = "test"
  subnet_ids          = ["subnet-a", "subnet-b"]
  api_allowed_cidrs   = ["203.0.113.0/24"]
  admins              = ["arn:aws:iam::123456789012:role/admin"]
  general_pool        = { instance_types = ["m7i.xlarge"], min_nodes = 2, max_nodes = 6, disk_gib = 100 }
  pool_label          = "scaled-yolov4/pool"
  deletion_protection = true
  logs_key_arn        = "arn:aws:kms:eu-west-1:123456789012:key/logs"
}

run "only_known_networks_reach_the_api" {
  command = plan

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.0/24"])
    error_message = "The API answers the given networks."
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "All logs of the control plane are kept."
  }
}

run "without_networks_the_api_is_private" {
  command = plan

  variables {
    api_allowed_cidrs = []
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "The API has no public endpoint."
  }
}

run "refuses_the_whole_internet" {
  command = plan

  variables {
    api_allowed_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.api_allowed_cidrs]
}
