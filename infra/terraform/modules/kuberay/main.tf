# Ray jobs: the KubeRay operator runs them, Kueue admits all pods of a job or none, with one queue for all GPU pools.

resource "helm_release" "operator" {
  name             = "kuberay-operator"
  namespace        = "kuberay"
  create_namespace = true
  repository       = "https://ray-project.github.io/kuberay-helm"
  chart            = "kuberay-operator"
  version          = "1.7.0"

  values = [yamlencode({
    resources = { requests = { cpu = "100m", memory = "512Mi" }, limits = { memory = "512Mi" } }
  })]
}

resource "helm_release" "kueue" {
  name             = "kueue"
  namespace        = "kueue-system"
  create_namespace = true
  repository       = "oci://registry.k8s.io/kueue/charts"
  chart            = "kueue"
  version          = "0.19.2"
}

locals {
  queue = "training"

  # A flavour per pool. The head of a Ray cluster needs no GPU, so the general pool comes first.
  flavors = concat(
    [{
      name          = "general"
      node_selector = { (var.pool_label) = "general" }
      taint         = null
      quota         = { cpu = var.general_quota.vcpus, memory = "${var.general_quota.memory_gib}Gi", "nvidia.com/gpu" = 0 }
    }],
    [for name, pool in var.pools : {
      name          = name
      node_selector = pool.node_selector
      taint         = pool.taint
      quota = {
        cpu              = pool.max_nodes * pool.vcpus_per_node
        memory           = "${pool.max_nodes * pool.memory_per_node}Gi"
        "nvidia.com/gpu" = pool.max_nodes * pool.gpus_per_node
      }
    }],
  )
}

resource "helm_release" "queues" {
  name      = "queues"
  namespace = var.namespace
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = concat(
    [for flavor in local.flavors : {
      apiVersion = "kueue.x-k8s.io/v1beta2"
      kind       = "ResourceFlavor"
      metadata   = { name = flavor.name }
      spec = {
        nodeLabels  = flavor.node_selector
        tolerations = flavor.taint == null ? [] : [{ key = flavor.taint, operator = "Exists", effect = "NoSchedule" }]
      }
    }],
    [
      {
        apiVersion = "kueue.x-k8s.io/v1beta2"
        kind       = "ClusterQueue"
        metadata   = { name = local.queue }
        spec = {
          namespaceSelector = { matchLabels = { "kubernetes.io/metadata.name" = var.namespace } }
          queueingStrategy  = "BestEffortFIFO"
          resourceGroups = [{
            coveredResources = ["cpu", "memory", "nvidia.com/gpu"]
            flavors = [for flavor in local.flavors : {
              name      = flavor.name
              resources = [for resource in ["cpu", "memory", "nvidia.com/gpu"] : { name = resource, nominalQuota = tostring(flavor.quota[resource]) }]
            }]
          }]
        }
      },
      {
        apiVersion = "kueue.x-k8s.io/v1beta2"
        kind       = "LocalQueue"
        metadata   = { name = local.queue, namespace = var.namespace }
        spec       = { clusterQueue = local.queue }
      },
    ],
  ) })]

  depends_on = [helm_release.kueue]
}

# The roles of the jobs. Training reads data and pipeline artifacts and writes below its own prefix, nothing else;
# serving reads champions, nothing else.

locals {
  identities = { training = data.aws_iam_policy_document.training.json, serving = data.aws_iam_policy_document.serving.json }
}

data "aws_iam_policy_document" "training" {
  statement {
    sid       = "FindInputs"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["dvc"].arn]
  }

  statement {
    sid       = "FindArtifacts"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["kfp"].arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefixes.pipelines}/*", "${var.prefixes.training}/*"]
    }
  }

  statement {
    sid       = "ReadInputs"
    actions   = ["s3:GetObject"]
    resources = ["${var.buckets["dvc"].arn}/*", "${var.buckets["kfp"].arn}/${var.prefixes.pipelines}/*"]
  }

  statement {
    sid       = "WriteItsPrefix"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.buckets["kfp"].arn}/${var.prefixes.training}/*"]
  }

  # An interrupted multipart upload is looked up and resumed.
  statement {
    sid       = "FindUploads"
    actions   = ["s3:ListBucketMultipartUploads"]
    resources = [var.buckets["kfp"].arn]
  }

  statement {
    sid       = "UseTheKey"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.buckets_key_arn]
  }
}

data "aws_iam_policy_document" "serving" {
  statement {
    sid       = "FindChampions"
    actions   = ["s3:ListBucket"]
    resources = [var.buckets["mlflow"].arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.prefixes.champions}/*"]
    }
  }

  statement {
    sid       = "ReadChampions"
    actions   = ["s3:GetObject"]
    resources = ["${var.buckets["mlflow"].arn}/${var.prefixes.champions}/*"]
  }

  statement {
    sid       = "Decrypt"
    actions   = ["kms:Decrypt"]
    resources = [var.buckets_key_arn]
  }
}

module "identity" {
  source   = "../pod_identity"
  for_each = local.identities

  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = each.key
  policy_json     = each.value
}

# The service accounts, and the rights a pipeline step needs to create, follow and delete a Ray job.
resource "helm_release" "accounts" {
  name      = "ray-accounts"
  namespace = var.namespace
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = concat(
    [for name in keys(local.identities) : { apiVersion = "v1", kind = "ServiceAccount", metadata = { name = name, namespace = var.namespace } }],
    [
      {
        apiVersion = "rbac.authorization.k8s.io/v1"
        kind       = "Role"
        metadata   = { name = "ray-jobs", namespace = var.namespace }
        rules = [
          { apiGroups = ["ray.io"], resources = ["rayjobs"], verbs = ["create", "delete", "get", "list", "patch", "watch"] },
          { apiGroups = ["ray.io"], resources = ["rayclusters"], verbs = ["get", "list", "watch"] },
          { apiGroups = ["kueue.x-k8s.io"], resources = ["workloads"], verbs = ["get", "list", "watch"] },
          { apiGroups = [""], resources = ["pods", "pods/log", "events"], verbs = ["get", "list", "watch"] },
        ]
      },
      {
        apiVersion = "rbac.authorization.k8s.io/v1"
        kind       = "RoleBinding"
        metadata   = { name = "ray-jobs", namespace = var.namespace }
        roleRef    = { apiGroup = "rbac.authorization.k8s.io", kind = "Role", name = "ray-jobs" }
        subjects   = [{ kind = "ServiceAccount", name = var.pipeline_service_account, namespace = var.namespace }]
      },
    ],
  ) })]

  depends_on = [module.identity]
}
