"""What lies under an S3 prefix: the zoo as the service sees it."""

from typing import Annotated

from fastapi import APIRouter, Query

from schemas.page import Page
from schemas.problem import FieldError
from schemas.zoo import ZooModel, ZooQuery
from service.auth import check_uri
from service.deps import Caller, ServicesOf
from service.errors import BucketForbidden, InvalidRequest, NoSuchBucket
from service.routes.responses import problems
from service.store.blobs import BlobForbidden, BlobNotFound, parse_uri
from service.zoo.read import MAX_OBJECTS, TooManyObjects

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=problems(401, 403), summary="Models in S3")
def list_models(query: Annotated[ZooQuery, Query()], services: ServicesOf, caller: Caller) -> Page[ZooModel]:
    """The models under `uri`, by uri, told from `config.json` and the heads of the weight files alone.

    A folder is a model when it holds weights or a `config.json`; `.pt2` and `.onnx` files are models of their
    own. Which cannot be pruned are listed too, with the reason. The next page: `?after=` with this one's
    `last_id`, as long as `has_more`.
    """
    check_uri(caller, query.uri, services.settings.bucket, loc=("query", "uri"))
    bucket = parse_uri(query.uri).bucket
    plugins = {name for worker in services.workers.living() for name in worker.model_plugins}
    try:
        return services.zoo.page(query.uri, limit=query.limit, after=query.after, plugins=plugins)
    except BlobNotFound:
        raise NoSuchBucket(
            f"uri: there is no bucket '{bucket}': correct its name, or create it.",
            errors=_at_uri("there is no such bucket", "bucket_not_found"),
        ) from None
    except BlobForbidden:
        raise BucketForbidden(
            f"uri: the service may not list {query.uri}: give its S3 credentials the right to read "
            f"bucket '{bucket}'.",
            errors=_at_uri("the service may not list it", "bucket_forbidden"),
        ) from None
    except TooManyObjects:
        raise InvalidRequest(
            f"uri: more than {MAX_OBJECTS:,} objects lie under {query.uri}: name a folder below it.",
            errors=_at_uri(f"more than {MAX_OBJECTS:,} objects: name a folder below it", "too_many_objects"),
        ) from None


def _at_uri(msg: str, type: str) -> tuple[FieldError, ...]:
    return (FieldError(loc=["query", "uri"], msg=msg, type=type),)
