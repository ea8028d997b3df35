output "id" {
  description = "Identifier of the instance, by which CloudWatch knows it."
  value       = aws_db_instance.this.identifier
}

output "host" {
  description = "Name of the host."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port of PostgreSQL."
  value       = aws_db_instance.this.port
}

output "database" {
  description = "Name of the database."
  value       = aws_db_instance.this.db_name
}

output "master_secret_arn" {
  description = "Secret with `username` and `password`, which RDS rotates."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}

output "key_arn" {
  description = "Key that encrypts the database and its secret."
  value       = module.key.arn
}
