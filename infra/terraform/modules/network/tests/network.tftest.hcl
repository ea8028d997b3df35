mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name         = "test"
  cidr         = "10.0.0.0/16"
  nat_gateways = 1
  logs_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/logs"
}

run "subnets_do_not_overlap" {
  command = plan

  assert {
    condition     = aws_subnet.private["eu-west-1b"].cidr_block == "10.0.16.0/20" # the second sixteenth of the /16
    error_message = "Private subnets are sixteenths of the VPC."
  }

  assert {
    condition     = aws_subnet.public["eu-west-1c"].cidr_block == "10.0.242.0/24" # 240 + 2
    error_message = "Public subnets begin at 240."
  }

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "Nothing gets a public address by itself."
  }
}

run "one_gateway_serves_all_zones" {
  command = plan

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-west-1a"]
    error_message = "The first zone has the gateway."
  }
}

run "a_gateway_a_zone" {
  command = plan

  variables {
    nat_gateways = 3
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "Each zone has its gateway."
  }
}

run "refuses_more_gateways_than_zones" {
  command = plan

  variables {
    nat_gateways = 4
  }

  expect_failures = [var.nat_gateways]
}
