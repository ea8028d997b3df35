output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.this.id
}

output "private_subnets" {
  description = "Ids of the private subnets by availability zone; each is known once its way out exists."
  value       = { for zone, association in aws_route_table_association.private : zone => association.subnet_id }
}

output "public_subnet_ids" {
  description = "Ids of the public subnets, for load balancers."
  value       = [for association in aws_route_table_association.public : association.subnet_id]
}
