mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
}

variables {
  name        = "test-data"
  kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/data"
  logging     = { bucket = "test-logs" }
  expirations = { "tmp/" = 7 }
}

run "is_private_versioned_and_encrypted" {
  command = plan

  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "Versions are kept."
  }

  assert {
    condition = (
      aws_s3_bucket_public_access_block.this.block_public_acls && aws_s3_bucket_public_access_block.this.block_public_policy &&
      aws_s3_bucket_public_access_block.this.ignore_public_acls && aws_s3_bucket_public_access_block.this.restrict_public_buckets
    )
    error_message = "Nothing is public."
  }

  assert {
    condition     = length(aws_s3_bucket_lifecycle_configuration.this.rule) == 2 # old versions, and tmp/
    error_message = "Each prefix has its rule beside the common one."
  }

  assert {
    condition     = aws_s3_bucket_logging.this[0].target_bucket == "test-logs"
    error_message = "Accesses are logged."
  }
}

run "refuses_a_name_that_s3_refuses" {
  command = plan

  variables {
    name = "Test_Data"
  }

  expect_failures = [var.name]
}
