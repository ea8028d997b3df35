"""An S3 store (SeaweedFS) and an MLflow server with accounts on PostgreSQL, on loopback.

    python -m infra.local.services up | status | down

`up` generates credentials and keeps them in the folder (.services, readable only by its owner), in a file `env` that
sets the environment variables for the services; it prints their names.
Tests start and stop their own services with `running`.
"""

import argparse
import contextlib
import json
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components import telemetry
from infra.local import servers
from infra.local.process import Server, ServiceError, answers, free_port, private

FOLDER = Path(".services")
STORE, DATABASE, TRACKING = "store", "database", "tracking"  # in the order they start


@dataclass(frozen=True)
class Services:
    """The services of one folder."""

    folder: Path
    sqlite: bool = False
    """Keep MLflow's records in files instead of PostgreSQL."""

    @property
    def servers(self) -> dict[str, Server]:
        database = {} if self.sqlite else {DATABASE: servers.database_server(self.folder)}
        return {STORE: Server("seaweedfs", self.folder), **database, TRACKING: Server("mlflow", self.folder)}

    def up(self, *names: str) -> None:
        """Start all services that are not running, or those named."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        settings = self._settings()
        for name, server in self.servers.items():
            if (not names or name in names) and not server.is_running():
                self._start(name, server, settings)
        lines = (f"export {name}={value}\n" for name, value in self.variables().items())
        private(self.folder / "env").write_text("".join(lines))

    def down(self) -> None:
        """Stop everything; stored data stays."""
        for server in reversed(self.servers.values()):
            server.stop()

    def status(self) -> dict[str, bool]:
        """Which services run, and answer if that can be tested without an account."""
        settings = self._settings()
        urls = {STORE: f"{_url(settings, STORE)}/healthz", TRACKING: f"{_url(settings, TRACKING)}/health"}
        return {
            name: server.is_running() and (name not in urls or answers(urls[name]))
            for name, server in self.servers.items()
        }

    def variables(self) -> dict[str, str]:
        """The environment variables that a process needs to use the services."""
        settings = self._settings()
        return {
            **self._store_variables(settings),
            "MLFLOW_TRACKING_URI": _url(settings, TRACKING),
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": settings["tracking_password"],
        }

    def remove(self) -> None:
        """Stop everything and delete stored data."""
        self.down()
        shutil.rmtree(servers.database_folder(self.folder), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, server: Server, settings: dict[str, str]) -> None:
        port = int(settings[f"{name}_port"])
        if name == STORE:
            key, secret = settings["store_key"], settings["store_secret"]
            servers.start_store(server, self.folder / "seaweedfs", port, key, secret)
        elif name == DATABASE:
            servers.start_database(server, port, settings["database_password"])
        else:
            admin = ("admin", settings["tracking_password"])
            artifacts = f"s3://{servers.BUCKET}/mlflow"
            servers.start_tracking(
                server, port, self._databases(settings), artifacts, admin, self._store_variables(settings)
            )

    def _databases(self, settings: dict[str, str]) -> tuple[str, str]:
        if self.sqlite:
            records, users = (f"sqlite:///{self.folder.absolute()}/{name}.db" for name in servers.DATABASES)
        else:
            port, password = int(settings["database_port"]), settings["database_password"]
            records, users = (servers.database_uri(port, password, name) for name in servers.DATABASES)
        return records, users

    def _store_variables(self, settings: dict[str, str]) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": settings["store_key"],
            "AWS_SECRET_ACCESS_KEY": settings["store_secret"],
            "AWS_ENDPOINT_URL": _url(settings, STORE),
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def _settings(self) -> dict[str, str]:
        """Ports and credentials, generated at first use."""
        path = self.folder / "settings.json"
        if not path.exists():
            made = {f"{name}_port": str(free_port()) for name in (STORE, DATABASE, TRACKING)}
            made |= {"store_key": secrets.token_hex(10)}
            made |= {name: secrets.token_hex(20) for name in ("store_secret", "database_password", "tracking_password")}
            private(path).write_text(json.dumps(made, indent=1) + "\n")
        return json.loads(path.read_text())


@contextlib.contextmanager
def running(folder: Path, *names: str, sqlite: bool = False) -> Iterator[Services]:
    """Services on free ports while the block runs, all or those named; everything is deleted afterwards."""
    services = Services(folder, sqlite)
    try:
        services.up(*names)
        yield services
    finally:
        services.remove()


def _url(settings: dict[str, str], name: str) -> str:
    return f"http://127.0.0.1:{settings[f'{name}_port']}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.services", description="An S3 store and an MLflow server on loopback."
    )
    parser.add_argument("command", choices=("up", "status", "down"))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="data, logs and credentials (%(default)s)")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql", help="for MLflow")
    given = parser.parse_args()
    telemetry.turn_off()
    services = Services(given.folder.absolute(), sqlite=given.database == "sqlite")
    if given.command == "down":
        services.down()
    elif given.command == "up":
        try:
            services.up()
        except ServiceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for name in services.variables():
            print(f"  {name}")
        print(f"The values are in {given.folder}/env: `. {given.folder}/env`; bucket: s3://{servers.BUCKET}")
    elif not (services.folder / "settings.json").exists():
        print("never started")
        return 3
    else:
        found = services.status()
        for name, is_well in found.items():
            print(f"{name}: {'running' if is_well else 'stopped'}")
        return 0 if all(found.values()) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
