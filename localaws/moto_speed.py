"""Removes repeated work and memory leaks of moto."""

import functools
import importlib
import secrets
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import boto3
import moto
import moto.backends
import moto.core.responses
import moto.sqs.models
import moto.utilities.utils
from moto.core.common_models import BaseModel
from moto.core.utils import camelcase_to_underscores, method_names_from_class
from moto.ses.models import SESBackend
from moto.sns.models import Topic

from localaws.aws import REGION

KEPT = 100
"""Number of sent notifications and e-mails that moto keeps."""


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
    # Keeps every notification and e-mail forever, for tests.
    for owner, name in ((Topic, "sent_notifications"), (SESBackend, "sent_messages")):
        replaced.enter_context(patch.object(owner, name, _latest(name), create=True))
    # Keeps every object forever, for its dashboard.
    replaced.enter_context(patch.object(BaseModel, "__new__", lambda cls, *_args, **_kwargs: object.__new__(cls)))


def _latest(name: str) -> property:
    """Returns an attribute that keeps the latest elements of a list."""

    def keep(owner: Any, elements: Iterable[Any]) -> None:
        vars(owner)[name] = deque(elements, maxlen=KEPT)

    return property(lambda owner: vars(owner)[name], keep)


def _import_ec2() -> None:
    """Imports EC2, which moto's CloudFormation needs, without its data: the instance types and the regions.

    This saves 0.7 s and 150 MB.
    """
    load = moto.utilities.utils.load_resource

    def load_other(path: str) -> Any:
        return {} if path.startswith("ec2") else load(path)

    with (
        patch.object(boto3.Session, "get_available_regions", lambda *_, **__: []),
        patch.object(moto.utilities.utils, "load_resource", load_other),
    ):
        importlib.import_module("moto.ec2.models")


_import_ec2()
