"""The server behind the page, for this machine alone.

    GET  /                  the page
    GET  /api/about         {"title", "enrolled", "formats", "most_bytes"}
    GET  /api/walks         {person: [walk, ...]}
    POST /api/walks/PATH    look at a walk of the data set           -> {"job": id}
    POST /api/upload?name=walk.avi&crop=1, the file as body          -> {"job": id}
    GET  /api/jobs/ID       how far it is, and its result

Requests from pages of other sites are refused, and so are hosts other than 127.0.0.1 and localhost.
"""

import tempfile
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from tools.web.jobs import Busy, Jobs

HOSTS = ["127.0.0.1", "localhost"]
FORMATS = (".avi", ".mp4", ".mov", ".mkv", ".webm", ".m4v", ".mpg")
MOST_BYTES = 200 * 2**20  # of an uploaded video
POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline'"
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


class Refused(Exception):
    """A request that cannot be served: (HTTP status, sentence)."""


def make_app(desk):
    """The application; `desk` answers: title, enrolled (names), walks() -> {person: [path]}, look_at(path, progress),
    look_at_video(file, crop, progress), expected (exceptions whose text is a sentence)."""
    jobs = Jobs(desk.expected)
    walks = desk.walks()
    known = {path for paths in walks.values() for path in paths}

    async def page(request):
        return FileResponse(Path(__file__).with_name("page.html"), headers=HEADERS)

    async def about(request):
        told = {"title": desk.title, "enrolled": desk.enrolled, "formats": FORMATS, "most_bytes": MOST_BYTES}
        return JSONResponse(told, headers=HEADERS)

    async def listing(request):
        return JSONResponse(walks, headers=HEADERS)

    async def look_at(request):
        own_page_only(request)
        path = request.path_params["path"]
        if path not in known:
            raise Refused(404, f"{path}: there is no such walk")
        return JSONResponse({"job": add(lambda progress: desk.look_at(path, progress))}, headers=HEADERS)

    async def upload(request):
        own_page_only(request)
        name = request.query_params.get("name", "")
        if Path(name).suffix.lower() not in FORMATS:
            raise Refused(415, f"{name[:80] or 'a file without a name'}: wanted a video, {' '.join(FORMATS)}")
        crop = request.query_params.get("crop") == "1"
        file = await save(request, Path(name).suffix.lower())

        def work(progress):
            try:
                return desk.look_at_video(file, crop, progress)
            except desk.expected as e:  # the user knows the file by its own name
                raise ValueError(str(e).replace(str(file), name)) from e
            finally:
                file.unlink(missing_ok=True)

        try:
            return JSONResponse({"job": add(work)}, headers=HEADERS)
        except Refused:
            file.unlink(missing_ok=True)
            raise

    async def state(request):
        found = jobs.state(request.path_params["job"])
        if found is None:
            raise Refused(404, "this job is not known any more; look at the walk again")
        return JSONResponse(found, headers=HEADERS)

    def add(work):
        try:
            return jobs.add(work)
        except Busy as e:
            raise Refused(503, str(e)) from e

    async def refuse(request, e):
        status, sentence = e.args
        return JSONResponse({"error": sentence}, status, headers=HEADERS)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/api/about", about),
            Route("/api/walks", listing),
            Route("/api/walks/{path:path}", look_at, methods=["POST"]),
            Route("/api/upload", upload, methods=["POST"]),
            Route("/api/jobs/{job}", state),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)],
        exception_handlers={Refused: refuse},
    )
    app.state.jobs = jobs
    return app


def own_page_only(request: Request):
    """A page of another site could make the browser send this; it bears that site's origin."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host')}":
        raise Refused(403, "only the page of this server may ask for this")


async def save(request, suffix) -> Path:
    """The request's body as a temporary file of at most MOST_BYTES."""
    size = 0
    with tempfile.NamedTemporaryFile(prefix="gaitnet-", suffix=suffix, delete=False) as file:
        path = Path(file.name)
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > MOST_BYTES:
                    raise Refused(413, f"the video is larger than {MOST_BYTES // 2**20} MB; cut the walk out of it")
                file.write(chunk)
            if not size:
                raise Refused(400, "the file is empty")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path
