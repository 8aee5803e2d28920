"""The API reference at `/docs`: Swagger UI, served without requests to other sites."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Response
from starlette.staticfiles import StaticFiles

from api.content_policy import OWN_FILES

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streaming-recommender: API reference</title>
<link rel="icon" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<div id="reference"></div>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""

# Without `validatorUrl` Swagger UI shows a badge of a validator on the internet.
START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: "none",
});
"""

router = APIRouter(include_in_schema=False)


def serve_reference(app: FastAPI) -> None:
    """Add the page, and the files that it loads, to an application."""
    app.include_router(router)
    # Only the files of Swagger UI's own distribution are used of this package.
    assets = StaticFiles(packages=[("fastapi_swagger", "resources")])
    app.mount("/docs/assets", assets, name="assets")


@router.get("/docs")
async def reference_page() -> Response:
    """The page; its links are relative, because a proxy may serve it under another path."""
    return Response(PAGE, media_type="text/html", headers=OWN_FILES)


@router.get("/docs/start.js")
async def start_script() -> Response:
    """The script that shows the reference; the page's policy forbids inline scripts."""
    return Response(START, media_type="text/javascript", headers=OWN_FILES)
