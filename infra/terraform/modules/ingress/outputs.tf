output "urls" {
  description = "Address of each site."
  value       = { for name, host in local.hosts : name => "https://${host}" }
}

output "user_pool_id" {
  description = "User pool, to which an administrator adds users."
  value       = aws_cognito_user_pool.this.id
}

output "load_balancer" {
  description = "The load balancer as CloudWatch names it."
  value       = aws_lb.this.arn_suffix
}
