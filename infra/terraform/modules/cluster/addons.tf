# EKS add-ons (in EKS's default version for the cluster), the autoscaler and the default storage class.

locals {
  before_nodes = toset(["eks-pod-identity-agent", "kube-proxy", "vpc-cni"])
  after_nodes  = toset(["aws-ebs-csi-driver", "coredns", "metrics-server"])

  # Add-ons that call AWS: their service account and AWS-managed policy.
  addon_policies = {
    vpc-cni            = { service_account = "aws-node", policy = "AmazonEKS_CNI_Policy" }
    aws-ebs-csi-driver = { service_account = "ebs-csi-controller-sa", policy = "service-role/AmazonEBSCSIDriverPolicy" }
  }
}

data "aws_iam_policy_document" "addon_trust" {
  for_each = local.addon_policies

  statement {
    actions = ["sts:AssumeRole", "sts:TagSession"]

    principals {
      type        = "Service"
      identifiers = ["pods.eks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/eks-cluster-name"
      values   = [var.name]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:RequestTag/kubernetes-service-account"
      values   = [each.value.service_account]
    }
  }
}

resource "aws_iam_role" "addon" {
  for_each = local.addon_policies

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.addon_trust[each.key].json
}

resource "aws_iam_role_policy_attachment" "addon" {
  for_each = local.addon_policies

  role       = aws_iam_role.addon[each.key].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/${each.value.policy}"
}

resource "aws_eks_addon" "before_nodes" {
  for_each = local.before_nodes

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_update = "PRESERVE"

  dynamic "pod_identity_association" {
    for_each = { for name, addon in local.addon_policies : name => addon if name == each.key }

    content {
      service_account = pod_identity_association.value.service_account
      role_arn        = aws_iam_role.addon[pod_identity_association.key].arn
    }
  }

  depends_on = [aws_iam_role_policy_attachment.addon]
}

resource "aws_eks_addon" "after_nodes" {
  for_each = local.after_nodes

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  resolve_conflicts_on_update = "PRESERVE"

  dynamic "pod_identity_association" {
    for_each = { for name, addon in local.addon_policies : name => addon if name == each.key }

    content {
      service_account = pod_identity_association.value.service_account
      role_arn        = aws_iam_role.addon[pod_identity_association.key].arn
    }
  }

  depends_on = [aws_eks_node_group.general, aws_iam_role_policy_attachment.addon]
}

# The Cluster Autoscaler adds nodes to a pool when pods are pending, and removes idle ones.

locals {
  autoscaler = "cluster-autoscaler"
}

data "aws_iam_policy_document" "autoscaler" {
  statement {
    sid = "See"
    actions = [
      "autoscaling:DescribeAutoScalingGroups",
      "autoscaling:DescribeAutoScalingInstances",
      "autoscaling:DescribeLaunchConfigurations",
      "autoscaling:DescribeScalingActivities",
      "ec2:DescribeImages",
      "ec2:DescribeInstanceTypes",
      "ec2:DescribeLaunchTemplateVersions",
      "ec2:GetInstanceTypesFromInstanceRequirements",
    ]
    resources = ["*"]
  }

  statement {
    sid       = "SeeNodeGroups"
    actions   = ["eks:DescribeNodegroup"]
    resources = ["${replace(aws_eks_cluster.this.arn, ":cluster/", ":nodegroup/")}/*"]
  }

  # EKS puts this tag on the groups of this cluster, and on no other.
  statement {
    sid       = "ScaleThisCluster"
    actions   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}"
      values   = ["owned"]
    }
  }
}

module "autoscaler_identity" {
  source = "../pod_identity"

  cluster_name    = aws_eks_cluster.this.name
  namespace       = "kube-system"
  service_account = local.autoscaler
  policy_json     = data.aws_iam_policy_document.autoscaler.json
}

resource "helm_release" "autoscaler" {
  name       = local.autoscaler
  namespace  = "kube-system"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = "9.59.0"

  values = [yamlencode({
    autoDiscovery = { clusterName = aws_eks_cluster.this.name }
    awsRegion     = data.aws_region.current.region
    rbac          = { serviceAccount = { name = local.autoscaler } }
    extraArgs = {
      # Of the suitable pools, the one that wastes least; GPU pools have no nodes to balance with others.
      expander                      = "least-waste"
      skip-nodes-with-local-storage = false
      scale-down-unneeded-time      = "10m"
    }
  })]

  depends_on = [aws_eks_addon.after_nodes, aws_eks_access_policy_association.admin, module.autoscaler_identity]
}

resource "helm_release" "storage_class" {
  name      = "storage-class"
  namespace = "kube-system"
  chart     = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    {
      apiVersion = "storage.k8s.io/v1"
      kind       = "StorageClass"
      metadata = {
        name        = "gp3"
        annotations = { "storageclass.kubernetes.io/is-default-class" = "true" }
      }
      provisioner          = "ebs.csi.aws.com"
      parameters           = { type = "gp3", encrypted = "true" }
      volumeBindingMode    = "WaitForFirstConsumer"
      allowVolumeExpansion = true
      reclaimPolicy        = "Delete"
    },
  ] })]

  depends_on = [aws_eks_addon.after_nodes, aws_eks_access_policy_association.admin]
}
