"""Checks of AWS, for the doctor of a platform."""

from collections.abc import Callable

from components.doctor.checks import Finding


def check_bucket(bucket: str) -> Finding:
    """Does the S3 bucket exist, and is it accessible?"""
    from components.storage.client import connect

    return _asking_aws(lambda: connect().head_bucket(Bucket=bucket), bucket, "check AWS credentials and region")


def check_image(repository: str, tag: str, region: str) -> Finding:
    """Does the registry have an image with this tag? repository: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME."""
    from boto3.session import Session

    def ask() -> None:
        ecr = Session().client("ecr", region_name=region)
        ecr.describe_images(repositoryName=repository.partition("/")[2], imageIds=[{"imageTag": tag}])

    return _asking_aws(ask, f"{repository}:{tag}", "make image, then docker push (docs/cluster.md)")


def _asking_aws(ask: Callable[[], object], what: str, fix: str) -> Finding:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        ask()
    except ClientError as error:
        return Finding(False, f"{what}: AWS answered {error.response['Error'].get('Code', error)}", fix)
    except BotoCoreError as error:
        return Finding(False, f"{what}: {error}", fix)
    return Finding(True, what)
