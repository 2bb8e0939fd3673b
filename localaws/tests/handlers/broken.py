"""A handler module that cannot be imported, because a dependency is not installed."""

import nowhere_to_be_found  # type: ignore[import-not-found]  # noqa: F401
