"""Removes repeated work and memory leaks of moto."""

import functools
import importlib
import logging
import secrets
import sys
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock, patch

import boto3
import moto
import moto.backends
import moto.core.responses
import moto.sqs.models
import moto.utilities.utils
from moto.core.common_models import BaseModel
from moto.core.utils import camelcase_to_underscores, method_names_from_class

from localaws.aws import REGION

log = logging.getLogger(__name__)


def save_time(replaced: ExitStack) -> None:
    """Removes repeated work and memory leaks of moto. Each comment describes what moto does."""
    # Reads a megabyte of JSON for the regions of each service. Only one region is used here.
    replaced.enter_context(patch.object(boto3.Session, "get_available_regions", lambda *_, **__: [REGION]))
    # Lists the folders of its package on disk.
    modules = tuple(moto.backends.list_of_moto_modules())
    replaced.enter_context(patch.object(moto.backends, "list_of_moto_modules", lambda: modules))
    # Collects the method names of a service's class by introspection.
    names = functools.cache(method_names_from_class)
    replaced.enter_context(patch.object(moto.core.responses, "method_names_from_class", names))
    # Converts the names of a queue's attributes for each message, and generates receipt handles letter by letter.
    replaced.enter_context(
        patch.object(moto.sqs.models, "camelcase_to_underscores", functools.cache(camelcase_to_underscores))
    )
    replaced.enter_context(patch.object(moto.sqs.models, "generate_receipt_handle", lambda: secrets.token_urlsafe(138)))
    # Keeps every object forever, for its dashboard.
    replaced.enter_context(patch.object(BaseModel, "__new__", lambda cls, *_args, **_kwargs: object.__new__(cls)))


def _import_unused_services() -> None:
    """Imports services that moto's CloudFormation needs but does not use here, without their slow data.

    This saves two seconds: EC2 reads the instance types and regions of all partitions, and API Gateway imports a
    validator of OpenAPI documents.
    """
    load = moto.utilities.utils.load_resource

    def load_other(path: str) -> Any:
        return {} if path.startswith("ec2") else load(path)

    with (
        patch.object(boto3.Session, "get_available_regions", lambda *_, **__: []),
        patch.object(moto.utilities.utils, "load_resource", load_other),
    ):
        importlib.import_module("moto.ec2.models")
    validator = "openapi_spec_validator"
    modules = (validator, f"{validator}.validation", f"{validator}.validation.exceptions")
    if validator not in sys.modules:
        sys.modules.update(dict.fromkeys(modules, Mock()))
        importlib.import_module("moto.apigateway.models")
        for name in modules:
            del sys.modules[name]


_import_unused_services()
