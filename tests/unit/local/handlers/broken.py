"""Cannot be imported: what it needs is not installed."""

import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401
