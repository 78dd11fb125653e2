"""What the command line reads from its environment."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientSettings(BaseSettings):
    """Where the service is and who asks; both may also come from the file that `secateur dev` writes."""

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", frozen=True)

    url: str | None = Field(None, description="The service, for example https://secateur.example.org.")
    api_key: SecretStr | None = Field(None, description="The key that `secateur keys create` printed.")
