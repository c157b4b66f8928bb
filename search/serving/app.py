"""The routes of `crossmodal serve`: the page, its questions, and pictures by their rows in the index."""

import secrets
import tempfile
from collections.abc import AsyncIterator
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException  # also of addresses that no route has

from core.errors import UserError
from search.serving.guard import Application, Guard
from search.serving.site import MOST_UPLOADED_BYTES, Site

DEFAULT_TOP = 12
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; script-src 'nonce-{nonce}'; "
    "style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the page: nothing is loaded from anywhere else."""
NOT_KEPT = {"cache-control": "no-store"}


def create_app(site: Site, host: str = "127.0.0.1") -> Application:
    """The application of a site.

    Args:
        host: that it will listen on.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)  # their pages load scripts from elsewhere
    page = (resources.files("search") / "templates" / "serve.html").read_text(encoding="utf-8")

    @app.get("/")
    def show_page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        policy = POLICY.format(nonce=nonce)
        return HTMLResponse(page.replace("NONCE", nonce), headers={"content-security-policy": policy, **NOT_KEPT})

    @app.get("/about")
    def about() -> JSONResponse:
        return JSONResponse(site.about(), headers=NOT_KEPT)

    @app.get("/search")
    def search(text: str = "", top: int = DEFAULT_TOP) -> JSONResponse:
        return JSONResponse({"answers": site.search_pictures(text, top)}, headers=NOT_KEPT)

    @app.post("/describe")
    async def describe(request: Request) -> JSONResponse:
        with tempfile.TemporaryDirectory(prefix="crossmodal-upload-") as folder:
            uploaded = Path(folder) / "picture"
            await receive_upload(request.stream(), uploaded, told=request.headers.get("content-length"))
            answers = await run_in_threadpool(site.search_texts, uploaded)
        return JSONResponse({"answers": answers}, headers=NOT_KEPT)

    @app.get("/pictures/{row}")
    def show_picture(row: int) -> Response:
        try:
            content = site.show_picture(row)
        except UserError as error:
            raise HTTPException(404, str(error)) from None
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=60"})

    _answer_in_one_line(app)
    return Guard(app, host)


def _answer_in_one_line(app: FastAPI) -> None:
    """What cannot be answered is one `problem`."""

    @app.exception_handler(UserError)
    def refuse(_: Request, error: UserError) -> JSONResponse:
        return _problem(422, str(error))

    @app.exception_handler(RequestValidationError)
    def refuse_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        names = ", ".join(str(problem["loc"][-1]) for problem in error.errors())
        return _problem(422, f"{names}: not a number")

    @app.exception_handler(AnyHTTPException)
    def tell(_: Request, error: AnyHTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail))


def _problem(status: int, problem: str) -> JSONResponse:
    return JSONResponse({"problem": problem}, status, headers=NOT_KEPT)


async def receive_upload(parts: AsyncIterator[bytes], path: Path, *, told: str | None) -> None:
    """Write the body of a request to a file.

    Args:
        told: its length as the client gave it, which need not be true.
    Raises:
        HTTPException: it is empty or too large; no more is read than is allowed.
    """
    too_large = HTTPException(413, f"a file of more than {MOST_UPLOADED_BYTES >> 20} MB is not taken")
    if told is not None and told.isdigit() and int(told) > MOST_UPLOADED_BYTES:
        raise too_large
    size = 0
    with path.open("wb") as stream:
        async for part in parts:
            size += len(part)
            if size > MOST_UPLOADED_BYTES:
                raise too_large
            stream.write(part)
    if size == 0:
        raise HTTPException(422, "there is no picture in the request")
