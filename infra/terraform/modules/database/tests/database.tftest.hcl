mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name                     = "test"
  vpc_id                   = "vpc-1"
  subnet_ids               = ["subnet-a", "subnet-b"]
  client_security_group_id = "sg-nodes"
  instance_class           = "db.t4g.medium"
  multi_az                 = false
  deletion_protection      = false
  logs_key_arn             = "arn:aws:kms:eu-west-1:123456789012:key/logs"
}

run "is_private_encrypted_and_backed_up" {
  command = plan

  assert {
    condition     = !aws_db_instance.this.publicly_accessible && aws_db_instance.this.storage_encrypted
    error_message = "No public address, encrypted storage."
  }

  assert {
    condition     = aws_db_instance.this.manage_master_user_password && aws_db_instance.this.backup_retention_period == 14
    error_message = "RDS keeps the password, and backups of two weeks."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.this.referenced_security_group_id == "sg-nodes"
    error_message = "Only the nodes may connect."
  }
}

run "refuses_backups_of_a_day" {
  command = plan

  variables {
    backup_retention_days = 1
  }

  expect_failures = [var.backup_retention_days]
}
