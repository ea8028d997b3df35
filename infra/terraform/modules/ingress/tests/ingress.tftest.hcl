mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

mock_provider "helm" {}

variables {
  name                      = "test"
  cluster_name              = "test"
  cluster_security_group_id = "sg-nodes"
  vpc_id                    = "vpc-1"
  public_subnet_ids         = ["subnet-a", "subnet-b"]
  domain                    = "dev.example.org"
  zone_id                   = "Z0123456789EXAMPLE"
  allowed_cidrs             = ["203.0.113.0/24"]
  log_bucket                = "test-logs"
  deletion_protection       = false
  sites = {
    mlflow = { namespace = "mlflow", service = "mlflow", port = 5000, pod_port = 5000, health = "/health" }
  }
}

run "nobody_passes_without_a_login" {
  command = plan

  assert {
    condition     = [for action in aws_lb_listener_rule.this["mlflow"].action : action.type] == ["authenticate-cognito", "forward"]
    error_message = "A request is forwarded only after the login."
  }

  assert {
    condition     = aws_lb_listener.this.default_action[0].type == "fixed-response"
    error_message = "What has no rule has no page."
  }

  assert {
    condition     = aws_cognito_user_pool.this.mfa_configuration == "ON" && aws_cognito_user_pool.this.admin_create_user_config[0].allow_admin_create_user_only
    error_message = "Users are made by administrators and have a second factor."
  }
}
