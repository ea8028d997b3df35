output "role_arn" {
  description = "ARN of the role that the pods take."
  value       = aws_iam_role.this.arn
}
