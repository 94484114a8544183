//! What a client sends arrives, and what an upstream sends arrives, byte for byte.

use mock_upstream::script::{Reply, Rule, Script, Stream, Turn};

use crate::client::{request, turn};
use crate::rig::Setting;

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_but_for_the_account() {
    let rig = Setting::new(&["one"], Script::rules([Rule::new(Turn::text("hi"))])).start().await;
    let fields = "Version: 0.169.0\r\nX-Dup: a\r\nx-dup:  b  \r\nAuthorization: Bearer own\r\n\
        ChatGPT-Account-Id: acct-own\r\nOrigin: http://localhost\r\nCookie: c=d\r\nSession-Id: s1\r\n";
    let body = "{\"model\" : \"m\",\n \"input\":[], \"n\":1.50}";
    let response = request(&rig, "POST", "/backend-api/codex/responses?q=%41", fields, body.as_bytes()).await;
    assert_eq!(response.status(), 200);
    let journal = rig.mock.journal().responses();
    assert_eq!(journal[0].body, body.as_bytes());
    let head = String::from_utf8(journal[0].head.to_vec()).unwrap();
    let token = rig.sandbox.root().join("one.json");
    let token: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(token).unwrap()).unwrap();
    let token = token["tokens"]["access_token"].as_str().unwrap();
    let host = rig.mock.base_url().trim_start_matches("http://");
    let expected = format!(
        "POST /backend-api/codex/responses?q=%41 HTTP/1.1\r\nVersion: 0.169.0\r\nX-Dup: a\r\nx-dup:  b  \r\n\
         Authorization: Bearer {token}\r\nChatGPT-Account-Id: one\r\nSession-Id: s1\r\nhost: {host}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    assert_eq!(head, expected);
    rig.stop().await;
}

#[tokio::test]
async fn odd_but_legal_streams_arrive_as_they_were_sent() {
    let stream = "\u{FEFF}: a comment\r\n\r\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r1\"}}\r\r\
        event:x\nid\nretry: 7\ndata:not json\ndata: two lines\n\n: tail\n\ndata: {\"type\":\"response.completed\",\
        \"response\":{\"id\":\"r1\"}}\n\ndata: cut";
    for size in [1, 7, 4096] {
        let writes: Vec<Vec<u8>> = stream.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let rule = Rule::new(Reply::Stream(Stream::bytes(writes)));
        let rig = Setting::new(&["one"], Script::rules([rule])).start().await;
        let response = turn(&rig, "", "{}").await;
        assert_eq!(response.text(), stream, "written {size} bytes at a time");
        let log = rig.stop().await;
        let completed = log.events("stream_complete").next().unwrap();
        assert_eq!(completed.fields["outcome"], "complete");
    }
}
