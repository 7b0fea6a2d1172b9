# ruff: noqa: F811 (fixtures come by import)
"""Images: create, show, list, change, delete."""

import hashlib
import io
from uuid import uuid4

import pytest

from tests.api.image_fixtures import RAW, V20, Actor, ImageCloud, admin, cloud, member, other, reader  # noqa: F401


def test_versions_are_public_and_absolute(cloud: ImageCloud) -> None:
    client = cloud.app.test_client()
    for path, status in (("/image", 300), ("/image/", 300), ("/image/versions", 200), ("/image/v2", 200)):
        response = client.get(path)
        assert response.status_code == status
        versions = response.get_json()["versions"]
        assert versions[0]["id"] == "v2.9"
        assert versions[0]["status"] == "CURRENT"
        assert versions[0]["links"][0]["href"] == "http://localhost/image/v2/"


def test_created_image_is_queued_and_lists_import_methods(member: Actor) -> None:
    response = member.call("POST", "/images", json={"name": "one", "os_distro": "debian", "tags": ["b", "a", "b"]})
    assert response.status_code == 201
    image = response.get_json()
    assert response.headers["Location"] == f"http://localhost/image/v2/images/{image['id']}"
    assert response.headers["OpenStack-image-import-methods"] == "glance-direct,web-download"
    assert image["status"] == "queued"
    assert image["visibility"] == "shared"
    assert image["owner"] == "demo"
    assert image["os_distro"] == "debian"
    assert image["tags"] == ["a", "b"]
    assert image["size"] is None
    assert image["checksum"] is None
    assert image["self"] == f"/v2/images/{image['id']}"
    assert image["file"] == f"/v2/images/{image['id']}/file"
    assert image["created_at"] == "2026-01-01T00:00:00Z"
    assert member.show(image["id"]) == image


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x" * 256}, 400),
        ({"disk_format": "floppy"}, 400),
        ({"min_disk": -1}, 400),
        ({"min_ram": "many"}, 400),
        ({"protected": "yes"}, 400),
        ({"visibility": "secret"}, 400),
        ({"property": 5}, 400),
        ({"tags": ["x" * 256]}, 400),
        ({"id": "not-a-uuid"}, 400),
        ({"status": "active"}, 403),
        ({"checksum": "0"}, 403),
        ({"location": "file:///etc/passwd"}, 403),
        ({"locations": []}, 403),
        ({"os_glance_import_task": "x"}, 403),
        ({"visibility": "public"}, 403),
        ({"owner": "other"}, 403),
        ({f"p{n}": "x" for n in range(129)}, 413),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(member: Actor, body: dict[str, object], status: int) -> None:
    response = member.call("POST", "/images", json=body)
    assert response.status_code == status, response.text
    assert response.get_json()["message"]
    assert member.names() == []


def test_clients_may_choose_the_id_once(member: Actor, other: Actor) -> None:
    image_id = str(uuid4())
    assert member.create(id=image_id)["id"] == image_id
    assert other.call("POST", "/images", json={"id": image_id}).status_code == 409


def test_only_an_admin_makes_images_public_or_gives_them_away(member: Actor, admin: Actor) -> None:
    assert admin.create(visibility="public", owner="demo")["owner"] == "demo"
    assert member.create(visibility="community")["visibility"] == "community"


def test_readers_cannot_change_images(member: Actor, reader: Actor) -> None:
    image = member.make()
    assert reader.show(image["id"])["name"] == "disk"
    assert reader.call("POST", "/images", json={}).status_code == 403
    assert reader.call("DELETE", f"/images/{image['id']}").status_code == 403
    assert reader.get(f"/images/{image['id']}/file").status_code == 403


def test_no_token_is_401_and_no_project_403(cloud: ImageCloud) -> None:
    assert cloud.app.test_client().get("/image/v2/images").status_code == 401
    assert cloud.actor("unscoped").get("/images").status_code == 403


def test_other_projects_cannot_see_private_or_change_public_images(member: Actor, admin: Actor, other: Actor) -> None:
    own = member.make(visibility="private")
    assert other.get(f"/images/{own['id']}").status_code == 404
    assert other.call("DELETE", f"/images/{own['id']}").status_code == 404
    public = admin.make(visibility="public", name="public")
    assert other.show(public["id"])["name"] == "public"
    assert other.get(f"/images/{public['id']}/file").data == RAW
    assert other.call("DELETE", f"/images/{public['id']}").status_code == 403
    assert other.patch(public["id"], {"op": "replace", "path": "/name", "value": "mine"}).status_code == 403
    assert other.upload(public["id"]).status_code == 403


def test_upload_is_hashed_and_downloaded_unchanged(member: Actor) -> None:
    image = member.create()
    assert member.get(f"/images/{image['id']}/file").status_code == 204
    assert member.upload(image["id"]).status_code == 204
    image = member.show(image["id"])
    assert image["status"] == "active"
    assert image["size"] == image["virtual_size"] == len(RAW)
    assert image["checksum"] == hashlib.md5(RAW).hexdigest()
    assert image["os_hash_algo"] == "sha512"
    assert image["os_hash_value"] == hashlib.sha512(RAW).hexdigest()
    response = member.get(f"/images/{image['id']}/file")
    assert response.data == RAW
    assert response.content_type == "application/octet-stream"
    assert response.headers["Content-MD5"] == image["checksum"]
    assert int(response.headers["Content-Length"]) == len(RAW)


def test_a_chunked_upload_is_the_same(member: Actor) -> None:
    image = member.create()
    response = member.call(
        "PUT",
        f"/images/{image['id']}/file",
        input_stream=io.BytesIO(RAW),
        environ_overrides={"wsgi.input_terminated": True},
        headers={"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"},
    )
    assert response.status_code == 204
    assert member.show(image["id"])["checksum"] == hashlib.md5(RAW).hexdigest()


@pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
def test_an_image_without_an_id_is_not_there(member: Actor, method: str) -> None:
    assert member.call(method, "/images/").status_code == 404


def test_an_upload_of_nothing_changes_nothing(member: Actor) -> None:
    image = member.create()
    assert member.upload(image["id"], b"").status_code == 204
    assert member.show(image["id"])["status"] == "queued"
    assert member.upload(image["id"]).status_code == 204
    assert member.show(image["id"])["status"] == "active"


def test_a_second_upload_is_a_conflict(member: Actor) -> None:
    image = member.make()
    assert member.upload(image["id"], b"else").status_code == 409
    assert member.get(f"/images/{image['id']}/file").data == RAW


def test_uploads_need_formats_and_the_right_type(member: Actor) -> None:
    image = member.call("POST", "/images", json={"name": "formless"}).get_json()
    assert member.upload(image["id"]).status_code == 400
    image = member.create()
    assert member.call("PUT", f"/images/{image['id']}/file", data=b"x", content_type="text/plain").status_code == 415
    assert member.show(image["id"])["status"] == "queued"


def test_a_broken_upload_leaves_the_image_queued_and_no_file(cloud: ImageCloud, member: Actor) -> None:
    image = member.create()
    response = member.call(
        "PUT",
        f"/images/{image['id']}/file",
        input_stream=io.BytesIO(RAW),
        headers={"Content-Type": "application/octet-stream"},
        environ_overrides={"CONTENT_LENGTH": str(len(RAW) + 1)},
    )
    assert response.status_code == 400
    assert member.show(image["id"])["status"] == "queued"
    assert list(cloud.store.directory.iterdir()) == []
    assert member.upload(image["id"]).status_code == 204


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=10-", 206, 10, len(RAW)),
        ("bytes=-5", 206, len(RAW) - 5, len(RAW)),
        (f"bytes=5-{len(RAW) * 2}", 206, 5, len(RAW)),
        (f"bytes={len(RAW)}-", 416, 0, 0),
        ("bytes=0-1,5-6", 416, 0, 0),
        ("apples=1-2", 416, 0, 0),
        ("bytes=9-1", 416, 0, 0),
    ],
)
def test_ranges_of_a_file(member: Actor, asked: str, status: int, start: int, stop: int) -> None:
    image = member.make()
    response = member.get(f"/images/{image['id']}/file", headers={"Range": asked})
    assert response.status_code == status
    if status == 206:
        assert response.data == RAW[start:stop]
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(RAW)}"


def test_a_deleted_image_is_gone_with_its_file(cloud: ImageCloud, member: Actor) -> None:
    image = member.make()
    assert member.call("DELETE", f"/images/{image['id']}").status_code == 204
    assert member.get(f"/images/{image['id']}").status_code == 404
    assert member.call("DELETE", f"/images/{image['id']}").status_code == 404
    assert list(cloud.store.directory.iterdir()) == []


def test_a_protected_image_stays(member: Actor) -> None:
    image = member.create(protected=True)
    assert member.call("DELETE", f"/images/{image['id']}").status_code == 403
    assert member.patch(image["id"], {"op": "replace", "path": "/protected", "value": False}).status_code == 200
    assert member.call("DELETE", f"/images/{image['id']}").status_code == 204


def test_patches_add_replace_and_remove(cloud: ImageCloud, member: Actor) -> None:
    image = member.create(os_distro="debian")
    cloud.clock.advance(60)
    response = member.patch(
        image["id"],
        {"op": "replace", "path": "/name", "value": "new"},
        {"op": "add", "path": "/a~1b~0c", "value": "slashed"},
        {"op": "add", "path": "/os_distro", "value": "alpine"},
        {"op": "replace", "path": "/tags", "value": ["x"]},
        {"op": "add", "path": "/gone", "value": "x"},
        {"op": "remove", "path": "/gone"},
    )
    assert response.status_code == 200
    image = response.get_json()
    assert image["name"] == "new"
    assert image["a/b~c"] == "slashed"
    assert image["os_distro"] == "alpine"
    assert image["tags"] == ["x"]
    assert "gone" not in image
    assert image["updated_at"] == "2026-01-01T00:01:00Z"
    assert member.show(image["id"]) == image


def test_the_older_patch_syntax_still_works(member: Actor) -> None:
    image = member.create()
    response = member.patch(
        image["id"], {"replace": "/name", "value": "old"}, {"add": "/p", "value": "1"}, {"remove": "/p"}, kind=V20
    )
    assert response.status_code == 200
    assert response.get_json()["name"] == "old"
    assert member.patch(image["id"], {"op": "replace", "path": "/name", "value": "x"}, kind=V20).status_code == 400
    assert member.patch(image["id"], kind="application/json").status_code == 415


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ({"op": "remove", "path": "/nothing"}, 409),
        ({"op": "replace", "path": "/nothing", "value": "x"}, 409),
        ({"op": "remove", "path": "/name"}, 403),
        ({"op": "replace", "path": "/size", "value": 1}, 403),
        ({"op": "replace", "path": "/id", "value": str(uuid4())}, 403),
        ({"op": "add", "path": "/locations/-", "value": {"url": "file:///x", "metadata": {}}}, 403),
        ({"op": "replace", "path": "/visibility", "value": "public"}, 403),
        ({"op": "replace", "path": "/owner", "value": "other"}, 403),
        ({"op": "add", "path": "name", "value": "x"}, 400),
        ({"op": "add", "path": "/tags/0", "value": "x"}, 400),
        ({"op": "add", "path": "/p"}, 400),
        ({"op": "add", "path": "/p", "value": 5}, 400),
        ({"op": "move", "from": "/a", "path": "/p"}, 400),
        ("nonsense", 400),
    ],
)
def test_a_patch_that_is_not_allowed_changes_nothing(member: Actor, operation: object, status: int) -> None:
    image = member.create()
    response = member.patch(image["id"], {"op": "replace", "path": "/name", "value": "changed"}, operation)
    assert response.status_code == status, response.text
    assert member.show(image["id"])["name"] == "disk"


def test_formats_cannot_change_once_the_bytes_are_there(member: Actor) -> None:
    image = member.make()
    assert member.patch(image["id"], {"op": "replace", "path": "/disk_format", "value": "qcow2"}).status_code == 403
    assert member.patch(image["id"], {"op": "replace", "path": "/disk_format", "value": "floppy"}).status_code == 400


def test_tags_are_added_and_removed(member: Actor) -> None:
    image = member.create()
    assert member.call("PUT", f"/images/{image['id']}/tags/nice%20one").status_code == 204
    assert member.show(image["id"])["tags"] == ["nice one"]
    assert member.call("DELETE", f"/images/{image['id']}/tags/nice%20one").status_code == 204
    assert member.call("DELETE", f"/images/{image['id']}/tags/nice%20one").status_code == 404
    assert member.call("PUT", f"/images/{uuid4()}/tags/x").status_code == 404


@pytest.mark.parametrize("name", ["image", "images", "member", "members"])
def test_schemas(member: Actor, name: str) -> None:
    assert member.get(f"/schemas/{name}").get_json()["name"] == name


def test_errors_are_json_and_for_glanceclient_pages(member: Actor) -> None:
    path = f"/images/{uuid4()}"
    answer = member.get(path).get_json()
    assert answer == {"code": "404 Not Found", "title": "Not Found", "message": answer["message"]}
    page = member.get(path, headers={"User-Agent": "python-glanceclient"})
    assert page.status_code == 404
    assert page.mimetype == "text/html"
    assert answer["message"] in page.text
    filtered = member.get("/images?sort_key=<b>'", headers={"User-Agent": "python-glanceclient"})
    assert "&lt;b&gt;'" in filtered.text


def test_dashboards_find_no_catalogue_of_properties(member: Actor) -> None:
    assert member.get("/metadefs/namespaces").get_json()["namespaces"] == []
    assert member.get("/metadefs/resource_types").get_json() == {"resource_types": []}


def test_service_information(member: Actor) -> None:
    assert member.get("/info/import").get_json()["import-methods"]["value"] == ["glance-direct", "web-download"]
    assert member.get("/info/stores").status_code == 404
    image = member.make()
    assert member.get(f"/images/{image['id']}/locations").status_code == 403
    assert member.call("POST", f"/images/{image['id']}/locations", json={}).status_code == 403
    assert member.get("/info/usage").get_json()["usage"]["image_count_total"]["usage"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/images/%00", None, 404),
        ("GET", "/images?name=%00", None, 400),
        ("GET", "/images?marker=%00", None, 400),
        ("POST", "/images", {"name": "a\0b"}, 400),
        ("POST", "/images", {"p\0": "x"}, 400),
        ("POST", "/images", {"p": "x\0"}, 400),
        ("POST", "/images", {"tags": ["\0"]}, 400),
        ("PUT", "/images/ID/tags/%00", None, 404),
        ("POST", "/images/ID/members", {"member": "\0"}, 400),
        ("GET", "/images/ID/members/%00", None, 404),
        ("POST", "/images/ID/import", {"method": {"name": "web-download", "uri": "http://x/\0"}}, 400),
        ("GET", "/tasks/%00", None, 404),
        ("POST", "/images", [], 400),
        ("POST", "/images", None, 415),
        ("POST", "/images/ID/members", {"member": 5}, 400),
        ("PUT", "/images/ID/members/x", {"status": 5}, 400),
        ("POST", "/images/ID/import", {"method": 5}, 400),
        ("POST", "/images/ID/import", {"method": {"name": []}}, 400),
        ("GET", "/images/" + "x" * 3000, None, 404),
        ("GET", "/images?name=in:" + "x," * 2000, None, 200),
        ("GET", "/images?size=99999999999999999999", None, 400),
        ("GET", "/images?limit=99999999999999999999", None, 200),
        ("GET", "/images?created_at=gt:9999-99-99T00:00:00", None, 400),
        ("POST", "/images", {"min_disk": 99999999999}, 400),
    ],
)
def test_strange_questions_have_plain_answers(member: Actor, method: str, path: str, body: object, status: int) -> None:
    path = path.replace("ID", member.create()["id"])
    response = member.call(method, path, **({} if body is None else {"json": body}))
    assert response.status_code == status, response.text


def test_only_advertised_formats_and_methods_are_accepted(member: Actor) -> None:
    schema = member.get("/schemas/image").get_json()["properties"]
    for name in ("disk_format", "container_format"):
        assert (
            schema[name]
            == member.get("/schemas/images").get_json()["properties"]["images"]["items"]["properties"][name]
        )
        for value in schema[name]["enum"]:
            assert member.call("POST", "/images", json={name: value}).status_code == 201
        assert member.call("POST", "/images", json={name: "zip"}).status_code == 400
    methods = member.get("/info/import").get_json()["import-methods"]["value"]
    said = member.call("POST", "/images", json={}).headers["OpenStack-image-import-methods"]
    assert said.split(",") == methods
    for method in ("glance-direct", "web-download", "copy-image", "glance-download"):
        image_id = member.create()["id"]
        asked = {"method": {"name": method, "uri": "http://192.0.2.1/disk"}}
        answer = member.call("POST", f"/images/{image_id}/import", json=asked)
        known = answer.status_code in (202, 409)  # nothing was staged for glance-direct
        assert known == (method in methods), answer.text


def test_unsupported_apis_return_errors(member: Actor) -> None:
    for method, path in (
        ("POST", "/metadefs/namespaces"),
        ("GET", "/metadefs/namespaces/some/objects"),
        ("GET", "/schemas/metadefs/namespace"),
    ):
        answer = member.call(method, path, **({"json": {"namespace": "some"}} if method == "POST" else {}))
        assert answer.status_code == 404
        assert answer.get_json()["message"] == "Metadata definitions are not supported."
    for method, path in (("GET", "/cache"), ("DELETE", "/cache"), ("PUT", "/cache/some"), ("DELETE", "/cache/some")):
        answer = member.call(method, path)
        assert answer.status_code == 404
        assert answer.get_json()["message"] == "Caching via API is not supported at this site."
