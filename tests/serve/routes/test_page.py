import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from serve.routes.page import page_routes


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=page_routes()))


def test_everything_the_page_names_is_served_by_us(client):
    page = client.get("/").text
    named = set(re.findall(r'(?:src|href)="(/[^"]*)"', page)) - {"/metrics", "/v1/system"}
    assert named == {"/dashboard/page.js", "/dashboard/page.css", "/favicon.ico"}
    assert all(client.get(path).status_code == 200 for path in named)


def test_the_policy_allows_nothing_from_elsewhere_and_the_page_needs_nothing_inline(client):
    answer = client.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", answer.text)
    script = client.get("/dashboard/page.js").text
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", script)


def test_every_id_the_script_uses_is_on_the_page(client):
    used = set(re.findall(r'\$\("([\w-]+)"\)', client.get("/dashboard/page.js").text))
    assert used <= set(re.findall(r'id="([\w-]+)"', client.get("/").text))
    assert len(used) > 8
