# ruff: noqa: F811 (fixtures come by import)
"""Image members and deactivated images."""

from uuid import uuid4

from tests.api.image_fixtures import RAW, Actor, ImageCloud, admin, cloud, member, other  # noqa: F401


def share(actor: Actor, image_id: str, project: str = "other") -> int:
    return actor.call("POST", f"/images/{image_id}/members", json={"member": project}).status_code


def test_sharing_from_offer_to_refusal(cloud: ImageCloud, member: Actor, other: Actor) -> None:
    image = member.make()
    image_id = image["id"]
    assert other.get(f"/images/{image_id}").status_code == 404
    response = member.call("POST", f"/images/{image_id}/members", json={"member": "other"})
    assert response.status_code == 200
    assert response.get_json() == {
        "member_id": "other",
        "image_id": image_id,
        "status": "pending",
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "schema": "/v2/schemas/member",
    }
    assert other.show(image_id)["name"] == "disk"
    assert other.names() == []
    assert other.names("?visibility=shared&member_status=pending") == ["disk"]
    assert other.names("?member_status=all") == ["disk"]
    cloud.clock.advance(5)
    answered = other.call("PUT", f"/images/{image_id}/members/other", json={"status": "accepted"})
    assert answered.get_json()["status"] == "accepted"
    assert answered.get_json()["updated_at"] == "2026-01-01T00:00:05Z"
    assert other.names() == ["disk"]
    assert other.get(f"/images/{image_id}/file").data == RAW
    other.call("PUT", f"/images/{image_id}/members/other", json={"status": "rejected"})
    assert other.names() == []
    assert other.names("?member_status=rejected") == ["disk"]
    assert member.call("DELETE", f"/images/{image_id}/members/other").status_code == 204
    assert member.call("DELETE", f"/images/{image_id}/members/other").status_code == 404
    assert other.get(f"/images/{image_id}").status_code == 404


def test_only_the_owner_shares_and_only_the_member_answers(cloud: ImageCloud, member: Actor, other: Actor) -> None:
    image_id = member.make()["id"]
    third = cloud.actor("third")
    assert share(member, image_id) == 200
    assert share(member, image_id) == 409
    assert share(member, image_id, "third") == 200
    assert share(other, image_id, "friend") == 403
    assert third.call("PUT", f"/images/{image_id}/members/other", json={"status": "accepted"}).status_code == 404
    assert member.call("PUT", f"/images/{image_id}/members/other", json={"status": "accepted"}).status_code == 403
    assert other.call("PUT", f"/images/{image_id}/members/other", json={"status": "perhaps"}).status_code == 400
    assert other.call("DELETE", f"/images/{image_id}/members/other").status_code == 403
    assert other.patch(image_id, {"op": "replace", "path": "/name", "value": "mine"}).status_code == 403

    def seen(actor: Actor) -> list[str]:
        return [row["member_id"] for row in actor.get(f"/images/{image_id}/members").get_json()["members"]]

    assert seen(member) == ["other", "third"]
    assert seen(other) == ["other"]
    assert other.get(f"/images/{image_id}/members/third").status_code == 404
    assert other.get(f"/images/{image_id}/members/other").status_code == 200
    assert member.get(f"/images/{image_id}/members/third").status_code == 200


def test_only_shared_images_have_members(member: Actor, admin: Actor) -> None:
    private = member.make(visibility="private")
    assert share(member, private["id"]) == 403
    assert member.get(f"/images/{private['id']}/members").status_code == 403
    public = admin.make(visibility="public")
    assert member.get(f"/images/{public['id']}/members").status_code == 403
    assert share(member, str(uuid4())) == 404
    assert member.call("POST", f"/images/{private['id']}/members", json={}).status_code == 400


def test_an_image_made_private_is_hidden_from_its_members(member: Actor, other: Actor) -> None:
    image_id = member.make()["id"]
    share(member, image_id)
    assert other.get(f"/images/{image_id}").status_code == 200
    member.patch(image_id, {"op": "replace", "path": "/visibility", "value": "private"})
    assert other.get(f"/images/{image_id}").status_code == 404


def test_members_have_a_limit(member: Actor) -> None:
    image_id = member.make()["id"]
    assert {share(member, image_id, f"p{number}") for number in range(128)} == {200}
    assert share(member, image_id, "one-too-many") == 413


def test_a_deactivated_image_cannot_be_downloaded_but_by_an_admin(member: Actor, admin: Actor, other: Actor) -> None:
    image_id = member.make(visibility="community")["id"]
    assert other.call("POST", f"/images/{image_id}/actions/deactivate").status_code == 403
    assert member.call("POST", f"/images/{image_id}/actions/deactivate").status_code == 204
    assert member.show(image_id)["status"] == "deactivated"
    assert member.call("POST", f"/images/{image_id}/actions/deactivate").status_code == 204
    assert member.get(f"/images/{image_id}/file").status_code == 403
    assert admin.get(f"/images/{image_id}/file").data == RAW
    assert member.call("POST", f"/images/{image_id}/actions/reactivate").status_code == 204
    assert member.get(f"/images/{image_id}/file").data == RAW


def test_an_image_without_bytes_cannot_be_deactivated(member: Actor) -> None:
    image_id = member.create()["id"]
    assert member.call("POST", f"/images/{image_id}/actions/deactivate").status_code == 403
    assert member.call("POST", f"/images/{image_id}/actions/reactivate").status_code == 403
