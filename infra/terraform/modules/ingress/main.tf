# Access from outside: one load balancer with TLS that authenticates with Cognito before a request reaches a pod.
#
# The load balancer and its rules are Terraform's; the controller in the cluster only keeps the pods' addresses
# registered (TargetGroupBinding), so it needs no right to create or open anything in the account.

locals {
  hosts     = { for name in keys(var.sites) : name => "${name}.${var.domain}" }
  pod_ports = toset([for site in values(var.sites) : tostring(site.pod_port)])
}

# The certificate

resource "aws_acm_certificate" "this" {
  domain_name               = var.domain
  subject_alternative_names = ["*.${var.domain}"]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

# One record validates the domain and its wildcard.
resource "aws_route53_record" "validation" {
  for_each = { for option in aws_acm_certificate.this.domain_validation_options : option.domain_name => option if option.domain_name == var.domain }

  zone_id = var.zone_id
  name    = each.value.resource_record_name
  type    = each.value.resource_record_type
  records = [each.value.resource_record_value]
  ttl     = 300
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

# Users: created by an administrator, each with a second factor.

resource "aws_cognito_user_pool" "this" {
  name                = var.name
  mfa_configuration   = "ON"
  deletion_protection = var.deletion_protection ? "ACTIVE" : "INACTIVE"

  admin_create_user_config {
    allow_admin_create_user_only = true
  }

  software_token_mfa_configuration {
    enabled = true
  }

  password_policy {
    minimum_length                   = 14
    require_lowercase                = true
    require_uppercase                = true
    require_numbers                  = true
    require_symbols                  = false
    temporary_password_validity_days = 3
  }
}

resource "aws_cognito_user_pool_domain" "this" {
  domain       = var.name
  user_pool_id = aws_cognito_user_pool.this.id
}

resource "aws_cognito_user_pool_client" "this" {
  name                                 = "load-balancer"
  user_pool_id                         = aws_cognito_user_pool.this.id
  generate_secret                      = true
  allowed_oauth_flows                  = ["code"]
  allowed_oauth_flows_user_pool_client = true
  allowed_oauth_scopes                 = ["openid"]
  supported_identity_providers         = ["COGNITO"]
  callback_urls                        = [for host in values(local.hosts) : "https://${host}/oauth2/idpresponse"]
}

# The load balancer

resource "aws_security_group" "this" {
  name        = "${var.name}-ingress"
  description = "Load balancer of ${var.name}"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "https" {
  for_each = var.allowed_cidrs

  security_group_id = aws_security_group.this.id
  description       = "HTTPS"
  cidr_ipv4         = each.key
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "pods" {
  for_each = local.pod_ports

  security_group_id            = aws_security_group.this.id
  description                  = "To the pods"
  referenced_security_group_id = var.cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

# The load balancer itself asks Cognito, whose addresses AWS does not list.
resource "aws_vpc_security_group_egress_rule" "cognito" {
  security_group_id = aws_security_group.this.id
  description       = "To Cognito"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "pods" {
  for_each = local.pod_ports

  security_group_id            = var.cluster_security_group_id
  description                  = "From the load balancer"
  referenced_security_group_id = aws_security_group.this.id
  ip_protocol                  = "tcp"
  from_port                    = tonumber(each.key)
  to_port                      = tonumber(each.key)
}

resource "aws_lb" "this" {
  #checkov:skip=CKV2_AWS_28:no page answers before Cognito has logged a known user in, and only known networks get that far
  name                       = var.name
  load_balancer_type         = "application"
  internal                   = false
  subnets                    = var.public_subnet_ids
  security_groups            = [aws_security_group.this.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection

  access_logs {
    enabled = true
    bucket  = var.log_bucket
    prefix  = "alb"
  }
}

resource "aws_lb_target_group" "this" {
  #checkov:skip=CKV_AWS_378:TLS ends at the load balancer; behind it the pods speak HTTP inside the VPC
  for_each = var.sites

  name        = "${var.name}-${each.key}"
  vpc_id      = var.vpc_id
  target_type = "ip"
  protocol    = "HTTP"
  port        = each.value.pod_port

  health_check {
    path    = each.value.health
    matcher = "200-399"
  }
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type = "fixed-response"

    fixed_response {
      content_type = "text/plain"
      message_body = "No such page."
      status_code  = "404"
    }
  }
}

resource "aws_lb_listener_rule" "this" {
  for_each = var.sites

  listener_arn = aws_lb_listener.this.arn

  condition {
    host_header {
      values = [local.hosts[each.key]]
    }
  }

  action {
    type  = "authenticate-cognito"
    order = 1

    authenticate_cognito {
      user_pool_arn       = aws_cognito_user_pool.this.arn
      user_pool_client_id = aws_cognito_user_pool_client.this.id
      user_pool_domain    = aws_cognito_user_pool_domain.this.domain
      session_timeout     = 43200
    }
  }

  action {
    type             = "forward"
    order            = 2
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}

resource "aws_route53_record" "site" {
  for_each = local.hosts

  zone_id = var.zone_id
  name    = each.value
  type    = "A"

  alias {
    name                   = aws_lb.this.dns_name
    zone_id                = aws_lb.this.zone_id
    evaluate_target_health = false
  }
}

# The controller that registers the pods

data "aws_region" "current" {}

locals {
  controller = "aws-load-balancer-controller"
}

data "aws_iam_policy_document" "controller" {
  statement {
    sid = "See"
    actions = [
      "ec2:DescribeAvailabilityZones",
      "ec2:DescribeInstances",
      "ec2:DescribeSecurityGroups",
      "ec2:DescribeSubnets",
      "ec2:DescribeVpcs",
      "elasticloadbalancing:DescribeTargetGroups",
      "elasticloadbalancing:DescribeTargetHealth",
    ]
    resources = ["*"]
  }

  statement {
    sid = "RegisterPods"
    actions = [
      "elasticloadbalancing:DeregisterTargets",
      "elasticloadbalancing:ModifyTargetGroup",
      "elasticloadbalancing:ModifyTargetGroupAttributes",
      "elasticloadbalancing:RegisterTargets",
    ]
    resources = [for group in aws_lb_target_group.this : group.arn]
  }
}

module "identity" {
  source = "../pod_identity"

  cluster_name    = var.cluster_name
  namespace       = "kube-system"
  service_account = local.controller
  policy_json     = data.aws_iam_policy_document.controller.json
}

resource "helm_release" "controller" {
  name       = local.controller
  namespace  = "kube-system"
  repository = "https://aws.github.io/eks-charts"
  chart      = "aws-load-balancer-controller"
  version    = "3.5.0"

  values = [yamlencode({
    clusterName                 = var.cluster_name
    region                      = data.aws_region.current.region
    vpcId                       = var.vpc_id
    serviceAccount              = { name = local.controller }
    enableBackendSecurityGroup  = false
    enableServiceMutatorWebhook = false
  })]

  depends_on = [module.identity]
}

resource "helm_release" "bindings" {
  name      = "target-group-bindings"
  namespace = "kube-system"
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [for name, site in var.sites : {
    apiVersion = "elbv2.k8s.aws/v1beta1"
    kind       = "TargetGroupBinding"
    metadata   = { name = name, namespace = site.namespace }
    spec = {
      targetGroupARN = aws_lb_target_group.this[name].arn
      targetType     = "ip"
      serviceRef     = { name = site.service, port = site.port }
    }
  }] })]

  depends_on = [helm_release.controller]
}
