"""The Kubernetes secret with addresses and credentials of S3 and MLflow, and settings of what the steps report."""

from components.monitoring.metrics import GATEWAY_VARIABLE
from components.monitoring.training_log import FORMAT_VARIABLE

SECRET = "scaled-yolov4"  # in the pipeline's namespace; optional
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    GATEWAY_VARIABLE,
    FORMAT_VARIABLE,
)
