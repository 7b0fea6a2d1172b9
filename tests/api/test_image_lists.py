# ruff: noqa: F811 (fixtures come by import)
"""Image lists: visibility, filters, sort order, pages."""

from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.api.image_fixtures import RAW, Actor, ImageCloud, admin, cloud, member, other  # noqa: F401


@pytest.fixture
def several(cloud: ImageCloud, member: Actor) -> list[str]:
    """Five images, created a minute apart."""
    made = []
    for number, name in enumerate(["one", "two", "three", "four", "five"]):
        cloud.clock.advance(60)
        content = RAW[: 100 * (number + 1)]
        image = member.make(
            content, name=name, min_ram=number, tags=[name, "all"], role="odd" if number % 2 else "even"
        )
        made.append(image["id"])
    return made


def test_the_newest_is_first(member: Actor, several: list[str]) -> None:
    assert member.names() == ["five", "four", "three", "two", "one"]


def test_pages_follow_relative_links(member: Actor, several: list[str]) -> None:
    seen, path = [], "/images?limit=2&sort=name:asc"
    while path:
        page = member.get(path).get_json()
        assert page["first"] == "/v2/images?limit=2&sort=name%3Aasc"
        assert page["schema"] == "/v2/schemas/images"
        seen += [image["name"] for image in page["images"]]
        path = page.get("next", "").removeprefix("/v2")
    assert seen == ["five", "four", "one", "three", "two"]


@pytest.mark.parametrize("sort", ["name:asc", "created_at:desc", "size:asc,name:desc"])
def test_a_page_is_found_though_the_image_before_it_was_deleted(member: Actor, several: list[str], sort: str) -> None:
    names = member.names(f"?sort={sort}")
    page = member.get(f"/images?limit=2&sort={sort}").get_json()
    assert member.call("DELETE", f"/images/{page['images'][1]['id']}").status_code == 204
    rest = member.get(page["next"].removeprefix("/v2")).get_json()
    assert [image["name"] for image in rest["images"]] == names[2:4]


@pytest.mark.parametrize(
    "place",
    [
        "[]",
        "{}",
        "[null]",
        '["a"',
        '[true, "a", "2026-01-01", "b"]',
        '[1.5, "a", "2026-01-01", "b"]',
        '[1208925819614629174706176, "a", "2026-01-01", "b"]',
        '[1, "a\\u0000", "2026-01-01", "b"]',
        '[1, "\\ud800", "2026-01-01", "b"]',
        '[1, "a", "0001-01-01T00:00:00+14:00", "b"]',
        '[1, "a", 7, "b"]',
        '[1, "a", "2026-01-01"]',
    ],
)
def test_a_spoilt_place_in_a_link_is_an_invalid_marker(member: Actor, place: str) -> None:
    path = f"/images?sort=size:asc,name:desc&marker={uuid4()}&sixstack_place="
    assert member.get(path + quote('[1, "a", "2026-01-01T00:00:00+00:00", "b"]')).status_code == 200
    assert member.get(path + quote(place)).status_code == 400


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("?name=one", ["one"]),
        ("?name=in:one,two", ["two", "one"]),
        ('?name=in:"one","five"', ["five", "one"]),
        ("?name=nobody", []),
        ("?status=queued", []),
        ("?status=active&limit=1", ["five"]),
        ("?status=in:active,queued&limit=1", ["five"]),
        ("?disk_format=raw&container_format=bare&limit=1", ["five"]),
        ("?disk_format=qcow2", []),
        ("?visibility=public", []),
        ("?visibility=shared&limit=1", ["five"]),
        ("?owner=demo&limit=1", ["five"]),
        ("?owner=other", []),
        ("?tag=one", ["one"]),
        ("?tag=all&tag=two", ["two"]),
        ("?tag=none", []),
        ("?role=odd", ["four", "two"]),
        ("?role=odd&name=two", ["two"]),
        ("?nothing=such", []),
        ("?size_min=300&size_max=400", ["four", "three"]),
        ("?size=200", ["two"]),
        ("?min_ram=4", ["five"]),
        ("?protected=true", []),
        ("?os_hidden=true", []),
        ("?created_at=gt:2026-01-01T00:04:00Z", ["five"]),
        ("?created_at=gte:2026-01-01T00:04:00Z", ["five", "four"]),
        ("?created_at=lt:2026-01-01T00:02:00Z", ["one"]),
        ("?created_at=2026-01-01T00:02:00Z", ["two"]),
        ("?updated_at=neq:2026-01-01T00:02:00Z&limit=1", ["five"]),
        ("?sort=size:desc&limit=2", ["five", "four"]),
        ("?sort_key=name&sort_dir=asc", ["five", "four", "one", "three", "two"]),
        ("?sort_key=container_format&sort_key=min_ram&sort_dir=asc", ["one", "two", "three", "four", "five"]),
        ("?limit=0", []),
    ],
)
def test_filters(member: Actor, several: list[str], query: str, names: list[str]) -> None:
    assert member.names(query) == names


@pytest.mark.parametrize(
    "query",
    [
        "?limit=-1",
        "?limit=many",
        "?marker=00000000-0000-0000-0000-000000000000",
        "?sort_key=colour",
        "?sort=name:up",
        "?sort=name&sort_key=name",
        "?visibility=secret",
        "?member_status=maybe",
        "?size_min=-1",
        "?size_max=big",
        "?protected=perhaps",
        "?created_at=gt:yesterday",
        '?name=in:"one',
    ],
)
def test_questions_that_make_no_sense(member: Actor, query: str) -> None:
    assert member.get(f"/images{query}").status_code == 400


def test_ids_as_the_openstack_command_asks_for_them(member: Actor, several: list[str]) -> None:
    assert member.names(f"?id=in:{several[0]},{several[2]}") == ["three", "one"]


def test_hidden_images_only_when_asked_for(member: Actor) -> None:
    hidden = member.make(name="hidden", os_hidden=True)
    assert member.names() == []
    assert member.names("?os_hidden=true") == ["hidden"]
    assert member.show(hidden["id"])["os_hidden"] is True


def test_visibility_by_project_and_role(member: Actor, other: Actor, admin: Actor) -> None:
    member.make(name="private", visibility="private")
    member.make(name="shared", visibility="shared")
    community = member.make(name="community", visibility="community")
    admin.make(name="public", visibility="public")
    assert sorted(member.names()) == ["community", "private", "public", "shared"]
    assert other.names() == ["public"]
    assert other.names("?visibility=community") == ["community"]
    assert sorted(other.names("?visibility=all")) == ["community", "public"]
    assert other.show(community["id"])["name"] == "community"
    assert sorted(admin.names()) == ["private", "public", "shared"]
    assert sorted(admin.names("?visibility=all")) == ["community", "private", "public", "shared"]
