"""What a step costs: an estimate in dollars from the requests it made and the bytes it wrote. Pure.

Default prices are the list prices of Amazon S3 Standard in us-east-1 (aws.amazon.com/s3/pricing, November 2026):
neither discounts nor transfer nor compute are in them. Another store's prices come from the environment, as
`CONTEXT_PLANE_PRICE_PUTS_1000` and so on; a local folder costs what the environment says, too.
"""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from context_plane.store.counting import Trace


class Prices(BaseSettings):
    """Dollars. Every field has a `CONTEXT_PLANE_PRICE_` variable of its name."""

    model_config = SettingsConfigDict(env_prefix="CONTEXT_PLANE_PRICE_", frozen=True)

    puts_1000: float = Field(default=0.005, ge=0, description="a thousand PUT or LIST requests")
    gets_1000: float = Field(default=0.0004, ge=0, description="a thousand GET requests")
    gb_month: float = Field(default=0.023, ge=0, description="10^9 bytes stored for a month")


def requests_usd(spent: Trace, prices: Prices) -> float:
    """Of a step's requests; deletes are free."""
    return (spent.puts + spent.lists) / 1000 * prices.puts_1000 + spent.gets / 1000 * prices.gets_1000


def storage_usd_month(size: int, prices: Prices) -> float:
    """Of so many bytes kept for a month."""
    return size / 1e9 * prices.gb_month
