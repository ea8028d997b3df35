output "kubernetes" {
  description = "How the provider of Helm reaches the cluster."
  value = {
    name                  = module.cluster.name
    endpoint              = module.cluster.endpoint
    certificate_authority = module.cluster.certificate_authority
  }
}

output "platform" {
  description = "Everything that a program needs to know to use or to check the platform; nothing in it is secret."
  value = {
    name   = var.name
    region = data.aws_region.current.region
    cluster = {
      name     = module.cluster.name
      endpoint = module.cluster.endpoint
    }
    image = {
      repository = module.registry.repository_url
      tag        = var.image_tag
    }
    pipelines = {
      namespace       = module.kubeflow.namespace
      service_account = module.kubeflow.service_account
      api_uri         = module.kubeflow.api_uri
    }
    training = {
      queue           = module.kuberay.queue
      service_account = module.kuberay.service_account
      storage_uri     = module.kuberay.storage_uri
      pools           = module.gpu_pools.pools
    }
    mlflow = {
      tracking_uri = module.mlflow.tracking_uri
      secret_arn   = module.mlflow.secret_arn
    }
    buckets       = { for purpose, bucket in module.artifact_store.buckets : purpose => bucket.name }
    champions_uri = module.kuberay.champions_uri
    database      = { host = module.database.host, port = module.database.port }
    prometheus    = module.observability.prometheus_uri
    urls          = module.ingress.urls
    user_pool_id  = module.ingress.user_pool_id
  }
}
