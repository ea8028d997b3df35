#!/usr/bin/env bash
# Applies the manifests of Kubeflow Pipelines with the overlay in $OVERLAY, and waits until they run.
# Needs aws and kubectl. CLUSTER and REGION name the cluster, VERSION the release.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export KUBECONFIG=$work/kubeconfig
aws eks update-kubeconfig --name "$CLUSTER" --region "$REGION" >/dev/null
printf '%s\n' "$OVERLAY" >"$work/kustomization.yaml"

manifests=https://github.com/kubeflow/pipelines//manifests/kustomize
kubectl apply --server-side --force-conflicts -k "$manifests/cluster-scoped-resources?ref=$VERSION"
kubectl wait --for=condition=established --timeout=60s crd/applications.app.k8s.io
kubectl apply --server-side --force-conflicts -k "$work"
kubectl -n kubeflow rollout status --timeout=15m deployment/ml-pipeline
kubectl -n kubeflow rollout status --timeout=15m deployment/ml-pipeline-ui
