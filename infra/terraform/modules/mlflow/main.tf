# MLflow's server from the project's own image, so that server and clients are of one version: users with passwords
# (basic-auth), runs and registry in PostgreSQL, artifacts in its bucket, which only the server itself may touch.

locals {
  namespace = "mlflow"
  name      = "mlflow" # of the service account, the deployment and the service
  port      = 5000
  host      = "${local.name}.${local.namespace}.svc.cluster.local"

  database = "${var.database.host}:${var.database.port}/${var.database.name}?sslmode=require"
  labels   = { "app.kubernetes.io/name" = local.name }
}

# The administrator's password and the key of the sessions: made by AWS, never in Terraform's state.

ephemeral "aws_secretsmanager_random_password" "admin" {
  password_length     = 32
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "session_key" {
  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "server" {
  #checkov:skip=CKV2_AWS_57:rotated by raising secret_string_wo_version; MLflow keeps the administrator's password in its own database
  name                    = "${var.name}/mlflow"
  description             = "Administrator and session key of MLflow"
  kms_key_id              = var.secrets_key_arn
  recovery_window_in_days = 7
}

resource "aws_secretsmanager_secret_version" "server" {
  secret_id                = aws_secretsmanager_secret.server.id
  secret_string_wo_version = 1
  secret_string_wo = jsonencode({
    username    = "admin"
    password    = ephemeral.aws_secretsmanager_random_password.admin.random_password
    session_key = ephemeral.aws_secretsmanager_random_password.session_key.random_password
  })
}

data "aws_iam_policy_document" "server" {
  statement {
    sid       = "FindArtifacts"
    actions   = ["s3:ListBucket"]
    resources = [var.bucket.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.bucket.prefix}/*"]
    }
  }

  statement {
    sid       = "KeepArtifacts"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${var.bucket.arn}/${var.bucket.prefix}/*"]
  }

  statement {
    sid       = "EncryptArtifacts"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [var.bucket.key_arn]
  }
}

module "identity" {
  source = "../pod_identity"

  cluster_name    = var.cluster_name
  namespace       = local.namespace
  service_account = local.name
  policy_json     = data.aws_iam_policy_document.server.json
}

locals {
  # Both addresses hold the password that RDS rotates: whatever an address cannot hold is escaped, and once more in the
  # INI file, where a percent sign stands for something else.
  uri           = "postgresql+psycopg://{{ .username | urlquery }}:{{ .password | urlquery }}@${local.database}"
  uri_in_ini    = "postgresql+psycopg://{{ .username | urlquery }}:{{ .password | urlquery | replace \"%\" \"%%\" }}@${local.database}"
  authorization = "mlflow.server.auth:authenticate_request_basic_auth"

  secret = {
    apiVersion = "external-secrets.io/v1"
    kind       = "ExternalSecret"
    metadata   = { name = local.name }
    spec = {
      refreshInterval = "5m"
      secretStoreRef  = { kind = "ClusterSecretStore", name = var.secret_store }
      target = {
        name = local.name
        template = {
          data = {
            backend-store-uri = local.uri
            session-key       = "{{ .session_key }}"
            "basic_auth.ini" = join("\n", [
              "[mlflow]",
              "default_permission = READ",
              "database_uri = ${local.uri_in_ini}",
              "admin_username = {{ .admin_username }}",
              "admin_password = {{ .admin_password }}",
              "authorization_function = ${local.authorization}",
              "",
            ])
          }
        }
      }
      data = [
        { secretKey = "username", remoteRef = { key = var.database.master_secret_arn, property = "username" } },
        { secretKey = "password", remoteRef = { key = var.database.master_secret_arn, property = "password" } },
        { secretKey = "admin_username", remoteRef = { key = aws_secretsmanager_secret.server.name, property = "username" } },
        { secretKey = "admin_password", remoteRef = { key = aws_secretsmanager_secret.server.name, property = "password" } },
        { secretKey = "session_key", remoteRef = { key = aws_secretsmanager_secret.server.name, property = "session_key" } },
      ]
    }
  }

  container = {
    name  = "mlflow"
    image = var.image
    args = [
      "mlflow", "server", "--app-name", "basic-auth", "--host", "0.0.0.0", "--port", tostring(local.port), "--workers", "2",
      "--artifacts-destination", "s3://${var.bucket.name}/${var.bucket.prefix}",
      "--allowed-hosts", join(",", concat(["localhost:*", "127.0.0.1:*", "${local.host}:*", "${local.host}"], var.public_hosts)),
    ]
    ports = [{ name = "http", containerPort = local.port }]
    env = [
      { name = "HOME", value = "/tmp" },
      { name = "MLFLOW_AUTH_CONFIG_PATH", value = "/etc/mlflow/basic_auth.ini" },
      { name = "MLFLOW_BACKEND_STORE_URI", valueFrom = { secretKeyRef = { name = local.name, key = "backend-store-uri" } } },
      { name = "MLFLOW_DISABLE_TELEMETRY", value = "true" },
      { name = "MLFLOW_FLASK_SERVER_SECRET_KEY", valueFrom = { secretKeyRef = { name = local.name, key = "session-key" } } },
      { name = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", value = "false" },
    ]
    resources = {
      requests = { cpu = "500m", memory = "2Gi" }
      limits   = { memory = "4Gi" }
    }
    startupProbe   = { httpGet = { path = "/health", port = "http" }, periodSeconds = 5, failureThreshold = 60 }
    readinessProbe = { httpGet = { path = "/health", port = "http" }, periodSeconds = 10 }
    # Once RDS has rotated the password, the mounted secret differs from the one this process was started with.
    livenessProbe = {
      exec             = { command = ["sh", "-c", "test \"$(cat /etc/mlflow/backend-store-uri)\" = \"$MLFLOW_BACKEND_STORE_URI\""] }
      periodSeconds    = 30
      failureThreshold = 2
    }
    securityContext = {
      allowPrivilegeEscalation = false
      readOnlyRootFilesystem   = true
      capabilities             = { drop = ["ALL"] }
    }
    volumeMounts = [
      { name = "secret", mountPath = "/etc/mlflow", readOnly = true },
      { name = "tmp", mountPath = "/tmp" },
    ]
  }
}

resource "helm_release" "this" {
  name             = local.name
  namespace        = local.namespace
  create_namespace = true
  chart            = "${path.module}/../../charts/manifests"

  values = [yamlencode({ manifests = [
    { apiVersion = "v1", kind = "ServiceAccount", metadata = { name = local.name } },
    local.secret,
    {
      apiVersion = "apps/v1"
      kind       = "Deployment"
      metadata   = { name = local.name, labels = local.labels }
      spec = {
        replicas = var.replicas
        selector = { matchLabels = local.labels }
        template = {
          metadata = { labels = local.labels }
          spec = {
            serviceAccountName           = local.name
            automountServiceAccountToken = false
            securityContext = {
              runAsNonRoot   = true
              seccompProfile = { type = "RuntimeDefault" }
            }
            containers = [local.container]
            volumes = [
              { name = "secret", secret = { secretName = local.name } },
              { name = "tmp", emptyDir = {} },
            ]
          }
        }
      }
    },
    {
      apiVersion = "v1"
      kind       = "Service"
      metadata   = { name = local.name, labels = local.labels }
      spec       = { selector = local.labels, ports = [{ name = "http", port = local.port, targetPort = "http" }] }
    },
    {
      apiVersion = "policy/v1"
      kind       = "PodDisruptionBudget"
      metadata   = { name = local.name }
      spec       = { maxUnavailable = 1, selector = { matchLabels = local.labels } }
    },
  ] })]

  depends_on = [aws_secretsmanager_secret_version.server, module.identity]
}
