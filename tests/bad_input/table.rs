//! Every endpoint of the server, once each: the names of old versions lead to the same code.

use crate::endpoint::{
    Auth, Endpoint,
    Kind::{Bool, Filter, Number, Word},
    delete, get, post, put,
};
use serde_json::json;

pub fn endpoints() -> Vec<Endpoint> {
    [server(), accounts(), own(), sync(), rooms(), reading(), directory(), keys(), backups(), media()]
        .concat()
}

fn server() -> Vec<Endpoint> {
    vec![
        get("versions").auth(Auth::None),
        get("v3/capabilities"),
        get("/.well-known/matrix/client").auth(Auth::None),
        get("/.well-known/matrix/support").auth(Auth::None).status(404),
        get("v3/voip/turnServer"),
        get("v3/thirdparty/protocols"),
        get("/_postern/health/live").auth(Auth::None),
        get("/_postern/health/ready").auth(Auth::None),
    ]
}

fn accounts() -> Vec<Endpoint> {
    vec![
        post("v3/register")
            .auth(Auth::None)
            .fields(json!({
                "username": "somebody", "password": "a long password", "device_id": "D", "inhibit_login": false,
                "initial_device_display_name": "d", "refresh_token": false,
            }))
            .params(&[("kind", Word)])
            .confirmed(),
        get("v3/register/available").auth(Auth::None).query("username=somebody"),
        get("v1/register/m.login.registration_token/validity").auth(Auth::None).query("token=x"),
        get("/_synapse/admin/v1/register").auth(Auth::Optional),
        post("/_synapse/admin/v1/register")
            .auth(Auth::None)
            .fields(json!({
                "nonce": "n", "username": "somebody", "displayname": "d", "password": "a long password",
                "admin": false, "user_type": "u", "mac": "00", "inhibit_login": false,
            }))
            .status(400),
        get("v3/login").auth(Auth::None),
        post("v3/login")
            .auth(Auth::None)
            .fields(json!({
                "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "nobody" },
                "password": "wrong password", "device_id": "D", "initial_device_display_name": "d",
                "refresh_token": false,
            }))
            .status(403),
        post("v1/login/get_token").fields(json!({})).confirmed(),
        post("v3/refresh").auth(Auth::None).fields(json!({ "refresh_token": "unknown" })).status(401),
        post("v3/logout"),
        post("v3/logout/all"),
        get("v3/account/whoami"),
        post("v3/account/password")
            .fields(json!({ "new_password": "another password", "logout_devices": true }))
            .confirmed(),
        post("v3/account/deactivate").fields(json!({ "erase": false })).confirmed(),
        get("v3/account/3pid"),
        get("v3/devices"),
        get("v3/devices/{device}"),
        put("v3/devices/{device}").fields(json!({ "display_name": "d" })),
        delete("v3/devices/{device}").fields(json!({})).confirmed().any_path(),
        post("v3/delete_devices").fields(json!({ "devices": ["D"] })).confirmed(),
        post("v3/user/{me}/openid/request_token"),
    ]
}

fn own() -> Vec<Endpoint> {
    vec![
        get("v3/user/{me}/account_data/test.kept"),
        put("v3/user/{me}/account_data/test.kept").free(json!({ "a": 1 })),
        get("v3/user/{me}/rooms/{room}/account_data/test.kept"),
        put("v3/user/{me}/rooms/{room}/account_data/test.kept").free(json!({ "a": 1 })),
        get("v3/user/{me}/rooms/{room}/tags"),
        put("v3/user/{me}/rooms/{room}/tags/u.tag").free(json!({ "order": 0.5 })),
        delete("v3/user/{me}/rooms/{room}/tags/u.tag"),
        post("v3/user/{me}/filter").fields(json!({
            "event_fields": ["type"], "event_format": "client", "account_data": { "limit": 1 }, "presence": {},
            "room": { "timeline": { "limit": 1 } },
        })),
        get("v3/user/{me}/filter/{filter}"),
        get("v3/profile/{user}").auth(Auth::None),
        get("v3/profile/{user}/displayname").auth(Auth::None),
        put("v3/profile/{me}/displayname").fields(json!({ "displayname": "d" })),
        delete("v3/profile/{me}/displayname"),
        put("v3/profile/{me}/test.field").free(json!({ "test.field": 1 })),
        get("v3/presence/{user}/status"),
        put("v3/presence/{me}/status").fields(json!({ "presence": "online", "status_msg": "s" })),
        get("v3/pushrules/"),
        get("v3/pushrules/global/"),
        get("v3/pushrules/global/override"),
        get("v3/pushrules/global/override/{rule}"),
        put("v3/pushrules/global/override/{rule}").fields(json!({
            "actions": ["notify"], "conditions": [{ "kind": "event_match", "key": "type", "pattern": "x" }],
        })),
        put("v3/pushrules/global/content/{rule}").fields(json!({ "actions": ["notify"], "pattern": "x" })),
        delete("v3/pushrules/global/override/{rule}"),
        get("v3/pushrules/global/override/{rule}/enabled"),
        put("v3/pushrules/global/override/{rule}/enabled").fields(json!({ "enabled": true })),
        get("v3/pushrules/global/override/{rule}/actions"),
        put("v3/pushrules/global/override/{rule}/actions").fields(json!({ "actions": ["notify"] })),
        get("v3/pushers"),
        post("v3/pushers/set")
            .fields(json!({
                "app_id": "a", "pushkey": "k", "kind": "http", "app_display_name": "a", "device_display_name": "d",
                "lang": "en", "data": { "url": "https://push.example.org/_matrix/push/v1/notify" },
            })),
        get("v3/notifications").params(&[("from", Word), ("limit", Number), ("only", Word)]),
        post("v3/user_directory/search").fields(json!({ "search_term": "x", "limit": 1 })),
    ]
}

fn sync() -> Vec<Endpoint> {
    vec![
        get("v3/sync").params(&[
            ("since", Word),
            ("filter", Filter),
            ("full_state", Bool),
            ("timeout", Number),
            ("set_presence", Word),
            ("use_state_after", Bool),
        ]),
        post("unstable/org.matrix.simplified_msc3575/sync")
            .fields(json!({
                "conn_id": "c", "txn_id": "t", "lists": { "all": { "ranges": [[0, 1]], "timeline_limit": 1,
                "required_state": [["m.room.create", ""]] } }, "room_subscriptions": {},
                "extensions": { "to_device": { "enabled": true } },
            }))
            .params(&[("pos", Word), ("timeout", Number), ("set_presence", Word)]),
    ]
}

fn rooms() -> Vec<Endpoint> {
    vec![
        post("v3/createRoom").fields(json!({
            "visibility": "private", "room_alias_name": "another", "name": "n", "topic": "t", "invite": [],
            "invite_3pid": [], "room_version": "11", "creation_content": {}, "initial_state": [],
            "preset": "private_chat", "is_direct": false, "power_level_content_override": {},
        })),
        post("v3/rooms/{room}/upgrade").fields(json!({ "new_version": "12", "additional_creators": [] })),
        put("v3/rooms/{room}/send/m.room.message/{txn}").free(json!({ "msgtype": "m.text", "body": "b" })),
        put("v3/rooms/{room}/redact/{event}/{txn}").free(json!({ "reason": "r" })),
        get("v3/rooms/{room}/state"),
        get("v3/rooms/{room}/state/m.room.create"),
        get("v3/rooms/{room}/state/m.room.create/"),
        get("v3/rooms/{room}/state/m.room.member/{me}"),
        put("v3/rooms/{room}/state/test.state").free(json!({ "a": 1 })),
        put("v3/rooms/{room}/state/test.state/").free(json!({ "a": 1 })),
        put("v3/rooms/{room}/state/test.state/key").free(json!({ "a": 1 })),
        post("v3/join/{room_or_alias}").fields(json!({ "reason": "r" })),
        post("v3/knock/{room_or_alias}").fields(json!({ "reason": "r" })).status(403),
        post("v3/rooms/{room}/join").fields(json!({ "reason": "r" })),
        post("v3/rooms/{room}/leave").fields(json!({ "reason": "r" })),
        post("v3/rooms/{room}/forget").status(400),
        post("v3/rooms/{room}/invite").fields(json!({ "user_id": "@third:here.test", "reason": "r" })),
        post("v3/rooms/{room}/kick")
            .fields(json!({ "user_id": "@third:here.test", "reason": "r" }))
            .status(403),
        post("v3/rooms/{room}/ban").fields(json!({ "user_id": "@third:elsewhere.test", "reason": "r" })),
        post("v3/rooms/{room}/unban")
            .fields(json!({ "user_id": "@third:here.test", "reason": "r" }))
            .status(400),
        get("v3/rooms/{room}/members").params(&[("at", Word)]),
        get("v3/rooms/{room}/joined_members"),
        get("v3/joined_rooms"),
        put("v3/rooms/{room}/typing/{me}").fields(json!({ "typing": true, "timeout": 1 })),
        post("v3/rooms/{room}/receipt/m.read/{event}").fields(json!({ "thread_id": "main" })),
        post("v3/rooms/{room}/read_markers").fields(json!({
            "m.fully_read": "$event", "m.read": "$event", "m.read.private": "$event",
        })),
    ]
}

fn reading() -> Vec<Endpoint> {
    vec![
        get("v3/rooms/{room}/messages").query("dir=b").params(&[
            ("dir", Word),
            ("from", Word),
            ("to", Word),
            ("limit", Number),
            ("filter", Filter),
        ]),
        get("v3/rooms/{room}/context/{event}").params(&[("limit", Number), ("filter", Filter)]),
        get("v3/rooms/{room}/event/{event}"),
        get("v1/rooms/{room}/timestamp_to_event")
            .query("ts=0&dir=f")
            .params(&[("ts", Number), ("dir", Word)]),
        get("v1/rooms/{room}/relations/{event}").params(&[
            ("from", Word),
            ("to", Word),
            ("limit", Number),
            ("dir", Word),
            ("recurse", Bool),
        ]),
        get("v1/rooms/{room}/relations/{event}/m.thread").params(&[("limit", Number)]),
        get("v1/rooms/{room}/relations/{event}/m.thread/m.room.message").params(&[("limit", Number)]),
        get("v1/rooms/{room}/threads").params(&[("from", Word), ("limit", Number), ("include", Word)]),
        post("v3/rooms/{room}/report").fields(json!({ "reason": "r" })),
        post("v3/rooms/{room}/report/{event}").fields(json!({ "reason": "r", "score": -100 })),
        post("v3/users/{user}/report").fields(json!({ "reason": "r" })).any_path(),
        post("v3/search")
            .fields(json!({ "search_categories": { "room_events": { "search_term": "x" } } }))
            .params(&[("next_batch", Word)]),
    ]
}

fn directory() -> Vec<Endpoint> {
    vec![
        get("v3/directory/room/{alias}").auth(Auth::None),
        put("v3/directory/room/{alias}").fields(json!({ "room_id": "!room:here.test" })).status(409),
        delete("v3/directory/room/{alias}"),
        get("v3/rooms/{room}/aliases"),
        get("v3/directory/list/room/{room}").auth(Auth::Optional),
        put("v3/directory/list/room/{room}").fields(json!({ "visibility": "private" })),
        get("v3/publicRooms").auth(Auth::Optional).params(&[("limit", Number), ("since", Word)]),
        post("v3/publicRooms").fields(json!({
            "limit": 1, "since": "p0", "filter": { "generic_search_term": "x", "room_types": [null] },
        })),
        get("v1/rooms/{room}/hierarchy").params(&[
            ("limit", Number),
            ("max_depth", Number),
            ("suggested_only", Bool),
            ("from", Word),
        ]),
        get("v1/room_summary/{room_or_alias}").auth(Auth::Optional),
    ]
}

fn keys() -> Vec<Endpoint> {
    vec![
        post("v3/keys/upload").fields(json!({
            "one_time_keys": { "signed_curve25519:AAAA": { "key": "k", "signatures": {} } }, "fallback_keys": {},
        })),
        post("v3/keys/query").fields(json!({ "device_keys": { "@third:here.test": [] } })),
        post("v3/keys/claim").fields(json!({ "one_time_keys": { "@third:here.test": { "D": "signed_curve25519" } } })),
        get("v3/keys/changes").query("from=s1_0_1").params(&[("from", Word), ("to", Word)]),
        post("v3/keys/device_signing/upload")
            .fields(json!({ "master_key": {}, "self_signing_key": {}, "user_signing_key": {} }))
            .status(400),
        post("v3/keys/signatures/upload").free(json!({})),
        put("v3/sendToDevice/test.note/{txn}").fields(json!({ "messages": { "@third:here.test": { "*": {} } } })),
        get("unstable/org.matrix.msc3814.v1/dehydrated_device").status(404),
        put("unstable/org.matrix.msc3814.v1/dehydrated_device")
            .fields(json!({ "device_id": "D", "device_data": { "algorithm": "a" }, "device_keys": {} }))
            .status(400),
        delete("unstable/org.matrix.msc3814.v1/dehydrated_device").status(404),
        post("unstable/org.matrix.msc3814.v1/dehydrated_device/{device}/events")
            .fields(json!({ "next_batch": "d0" }))
            .status(404),
    ]
}

fn backups() -> Vec<Endpoint> {
    let key =
        json!({ "first_message_index": 1, "forwarded_count": 0, "is_verified": false, "session_data": {} });
    vec![
        get("v3/room_keys/version"),
        post("v3/room_keys/version").fields(json!({ "algorithm": "m.megolm_backup.v1", "auth_data": {} })),
        get("v3/room_keys/version/{version}"),
        put("v3/room_keys/version/{version}")
            .fields(json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {} })),
        delete("v3/room_keys/version/{version}"),
        get("v3/room_keys/keys").query("version={version}").params(&[("version", Word)]),
        put("v3/room_keys/keys")
            .query("version={version}")
            .params(&[("version", Word)])
            .fields(json!({ "rooms": { "!r:h": { "sessions": { "s": key } } } })),
        delete("v3/room_keys/keys").query("version={version}").params(&[("version", Word)]),
        get("v3/room_keys/keys/!r:h").query("version={version}").params(&[("version", Word)]),
        put("v3/room_keys/keys/!r:h")
            .query("version={version}")
            .params(&[("version", Word)])
            .fields(json!({ "sessions": { "s": key } })),
        delete("v3/room_keys/keys/!r:h").query("version={version}").params(&[("version", Word)]),
        get("v3/room_keys/keys/!r:h/s").query("version={version}").params(&[("version", Word)]),
        put("v3/room_keys/keys/!r:h/s").query("version={version}").params(&[("version", Word)]).fields(key),
        delete("v3/room_keys/keys/!r:h/s").query("version={version}").params(&[("version", Word)]),
    ]
}

fn media() -> Vec<Endpoint> {
    vec![
        post("/_matrix/media/v3/upload").file(),
        post("/_matrix/media/v1/create"),
        put("/_matrix/media/v3/upload/here.test/{pending}").file(),
        get("/_matrix/media/v3/config"),
        get("v1/media/config"),
        get("v1/media/download/here.test/{media}").params(&[("timeout_ms", Number)]),
        get("v1/media/download/here.test/{media}/name.png").params(&[("timeout_ms", Number)]),
        get("v1/media/thumbnail/here.test/{media}").query("width=32&height=32").params(&[
            ("width", Number),
            ("height", Number),
            ("method", Word),
            ("timeout_ms", Number),
        ]),
        get("/_matrix/media/v3/download/here.test/{media}").auth(Auth::None).status(404),
        get("/_matrix/media/v3/download/here.test/{media}/name.png").auth(Auth::None).status(404),
        get("/_matrix/media/v3/thumbnail/here.test/{media}").auth(Auth::None).status(404),
    ]
}
