"""Takes the README's picture of the shop, of a running demo, right after a click.

python -m tests.e2e.pages.shop_picture http://localhost:8080 docs/images/shop.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e.conftest import started_browser
from tests.e2e.pages.shop_page import ShopPage

SIZE = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}


def take(url: str, path: Path) -> None:
    """Save a picture of the page whose cards have just moved."""
    with tempfile.TemporaryDirectory() as folder, started_browser(Path(folder)) as browser:
        page = ShopPage(browser, url)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
        for place in (2, 3, 2):
            page.look(place)
        browser.execute_script("document.activeElement.blur()")
        path.parent.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(path))


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
