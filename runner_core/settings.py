"""Settings: read once at the edge, then passed on as values.

Order of precedence: the environment, then `config.toml` in the home folder, then the defaults. The reference's
`FRACTAL_*` variables are read under their own names; everything else is `PILOTHOUSE_*` (`config.toml` uses the
field names in lower case).
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runner_core.failures import BadInput

BACKENDS = ("local", "local_experimental", "slurm", "slurm_ssh")


class UserSettings(BaseModel):
    """What a run needs to know of its user; the Slurm and SSH fields are for the backends of that name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slurm_accounts: tuple[str, ...] = ()
    ssh_host: str | None = None
    ssh_username: str | None = None
    ssh_private_key_path: str | None = None
    ssh_tasks_dir: str | None = None
    ssh_jobs_dir: str | None = None
    slurm_user: str | None = None
    cache_dir: str | None = None


class Profile(BaseModel):
    """A backend with the user settings that go with it, under a name of the operator's choice."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: str
    user: UserSettings = UserSettings()

    @field_validator("backend")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in BACKENDS:
            raise ValueError(f"unknown backend {value!r}; known: {', '.join(BACKENDS)}")
        return value


def _both(name: str) -> AliasChoices:
    """The reference's variable beside ours; in `config.toml` the plain field name."""
    return AliasChoices(f"PILOTHOUSE_{name}", f"FRACTAL_{name}", name.lower())


class Settings(BaseSettings):
    """Everything that can be set; see the README's table."""

    model_config = SettingsConfigDict(env_prefix="PILOTHOUSE_", extra="ignore", frozen=True, populate_by_name=True)

    home: Path = Field(default_factory=lambda: platformdirs.user_data_path("pilothouse"))
    """The folder that holds all that the program keeps: store, job folders, task environments, config."""
    database_url: str | None = None
    """Any SQLAlchemy URL; the default is the SQLite file `store.db` in `home`."""
    runner_backend: Annotated[str, Field(validation_alias=_both("RUNNER_BACKEND"))] = "local"
    """The backend when neither the command nor a profile names one. An unknown name fails the job."""
    runner_working_base_dir: Annotated[Path | None, Field(validation_alias=_both("RUNNER_WORKING_BASE_DIR"))] = None
    """Where job folders go; the default is `jobs` in `home`."""
    local_config_file: Annotated[Path | None, Field(validation_alias=_both("LOCAL_CONFIG_FILE"))] = None
    """JSON with the key `parallel_tasks_per_job`: how many units the local backends run at a time."""
    cache_dir: Annotated[Path | None, Field(validation_alias=_both("CACHE_DIR"))] = None
    """`FRACTAL_CACHE_DIR` of the tasks; the default is `cache` in `home`."""
    max_units_per_task: int = Field(default=20_000, ge=1)
    """More images or items than this fail the job before anything runs."""
    stop_grace_seconds: float = Field(default=10.0, ge=0)
    """How long a unit may take to end after SIGTERM before it is killed."""
    warm_units_per_process: int = Field(default=100, ge=1)
    """`local_experimental`: units after which a warm process is replaced."""
    keep_job_folder: bool = False
    """Whether the job folder stays beside its verified zip."""
    profile: str | None = None
    """The profile to use when the command names neither a profile nor a backend."""
    profiles: dict[str, Profile] = Field(default_factory=dict)

    @field_validator("home", "runner_working_base_dir", "local_config_file", "cache_dir")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `read_settings` hands in from `config.toml`."""
        return env_settings, init_settings

    @property
    def store(self) -> str | Path:
        """Where the store is: a SQLAlchemy URL, or the file of the default SQLite store."""
        return self.database_url or self.home / "store.db"

    @property
    def jobs_dir(self) -> Path:
        """The folder that holds the job folders and their zips."""
        return self.runner_working_base_dir or self.home / "jobs"

    @property
    def envs_dir(self) -> Path:
        """The folder that holds the environments of collected task packages."""
        return self.home / "envs"

    @property
    def runners_dir(self) -> Path:
        """The folder that holds the leases and the output of runner processes."""
        return self.home / "runners"

    @property
    def task_cache_dir(self) -> Path:
        """What tasks get as `FRACTAL_CACHE_DIR`."""
        return self.cache_dir or self.home / "cache"

    def profile_named(self, name: str) -> Profile:
        """The profile of that name, or a `BadInput` that lists the known ones."""
        try:
            return self.profiles[name]
        except KeyError:
            known = ", ".join(sorted(self.profiles)) or "none is set up"
            raise BadInput(
                f"there is no profile {name!r} (known: {known})",
                hint=f"add [profiles.{name}] to {self.home / 'config.toml'}",
            ) from None


def read_settings() -> Settings:
    """Read the environment and `config.toml`.

    Raises `BadInput` with the file, the key and what is wrong with it.
    """
    home = Settings.model_fields["home"].get_default(call_default_factory=True)
    home = Path(os.environ.get("PILOTHOUSE_HOME") or home).expanduser()
    config = home / "config.toml"
    values: dict[str, Any] = {}
    try:
        values = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{config} cannot be read: {error}") from error
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise BadInput(
            f"{config}: unknown key {unknown[0]!r}",
            hint=f"known keys: {', '.join(sorted(set(Settings.model_fields) - {'home'}))}",
        )
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"setting {where}: {first['msg']} (got {first['input']!r})") from None
