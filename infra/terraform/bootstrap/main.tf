# Run once in an account, before everything else: the bucket that keeps the state of the environments.
# Its own state is a local file; losing it is harmless, because the bucket can be imported again.

provider "aws" {
  region = var.region

  default_tags {
    tags = { Platform = "scaled-yolov4-state", ManagedBy = "terraform" }
  }
}

data "aws_caller_identity" "current" {}

module "key" {
  source = "../modules/kms_key"

  name        = "scaled-yolov4-state"
  description = "Terraform state of scaled-yolov4"
}

module "state" {
  source = "../modules/bucket"

  name            = "scaled-yolov4-state-${data.aws_caller_identity.current.account_id}-${var.region}"
  kms_key_arn     = module.key.arn
  noncurrent_days = 365
}
