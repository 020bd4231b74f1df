//! What the program sends, how it reads answers, and the exit codes.

use crate::fake::{
    Behaviour::{Answer, HangUp},
    FakeNode, run, told,
};

const APPLIED: &str = r#"{"revision":7,"changes":[{"action":"created","kind":"Domain","name":"shop"}]}"#;
const NO_QUORUM: &str = r#"{"type":"urn:selvedge:problem:no-quorum","title":"No quorum","status":503,
    "detail":"no quorum: voters aws-1, azr-1 cannot be reached; nothing was written","code":"no-quorum",
    "remedy":"start aws-1","missing":["aws-1","azr-1"]}"#;
const INVALID: &str = r#"{"type":"t","title":"t","status":422,"detail":"2 problems in the manifests",
    "code":"invalid","problems":[{"file":"a.yaml","line":4,"column":9,"message":"unknown field"}]}"#;

fn manifest(node: &FakeNode) -> String {
    let path = node.dir.path().join("shop.yaml");
    std::fs::write(&path, "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: shop}\nspec: {}\n")
        .unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn apply_sends_the_files_and_shows_the_changes() {
    let node = FakeNode::start(Answer(200, APPLIED));
    let file = manifest(&node);
    let (code, out, err) = told(&node.run(&["apply", "-f", &file, "--if-revision", "6"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "ACTION   KIND    NAME\ncreated  Domain  shop\nrevision 7\n");
    let request = node.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("POST /v1/apply?if_revision=6&dry_run=false"), "{request}");
    assert!(request.contains("metadata: {name: shop}"), "{request}");
    let (_, out, _) = told(&node.run(&["apply", "-f", &file, "-o", "json"]));
    assert!(out.contains("\"revision\": 7"), "{out}");
}

#[test]
fn no_quorum_is_exit_code_4_with_voters_and_remedy() {
    let node = FakeNode::start(Answer(503, NO_QUORUM));
    let (code, out, err) = told(&node.run(&["apply", "-f", &manifest(&node)]));
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("aws-1, azr-1") && err.contains("remedy: start aws-1"), "{err}");
}

#[test]
fn manifest_problems_are_listed_with_their_places() {
    let node = FakeNode::start(Answer(422, INVALID));
    let (code, _, err) = told(&node.run(&["apply", "-f", &manifest(&node)]));
    assert_eq!(code, 1);
    assert!(err.contains("\n  a.yaml:4:9: unknown field\n"), "{err}");
}

#[test]
fn a_write_without_an_answer_is_unknown_and_a_read_is_unreachable() {
    let node = FakeNode::start(HangUp);
    let (code, _, err) = told(&node.run(&["rollback", "3"]));
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("selvedge history"), "{err}");
    assert_eq!(node.requests.lock().unwrap().len(), 1, "a write is never sent twice");
    assert_eq!(told(&node.run(&["members"])).0, 3);
}

#[test]
fn an_unreachable_node_is_exit_code_3() {
    let (code, out, err) = told(&run(&["--socket", "/nonexistent/api.sock", "status"]));
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("/nonexistent/api.sock") && err.contains("selvedge node run"), "{err}");
}

#[test]
fn verdicts_and_checks_are_exit_code_5() {
    let deny = r#"{"verdict":"deny","reason":"no-contract","revision":1,"hops":[]}"#;
    let node = FakeNode::start(Answer(200, deny));
    let (code, out, _) = told(&node.run(&["explain", "--from", "a@b", "--to", "c@d", "--port", "tcp/80"]));
    assert_eq!(code, 5);
    assert!(out.starts_with("deny  a@b → c@d tcp/80\n"), "{out}");
    let node = FakeNode::start(Answer(200, r#"{"passed":false,"revision":1,"results":[]}"#));
    let file = manifest(&node);
    assert_eq!(told(&node.run(&["assert", "-f", &file])).0, 5);
    let node = FakeNode::start(Answer(200, "[]"));
    assert_eq!(told(&node.run(&["reach"])).0, 0);
    assert_eq!(told(&node.run(&["reach", "--from", "a@b", "--to", "c@d"])).0, 5);
}

#[test]
fn an_answer_that_is_not_understood_is_an_error() {
    for body in ["", "{}", "<html>", "[1]"] {
        let node = FakeNode::start(Answer(200, body));
        let (code, out, err) = told(&node.run(&["members"]));
        assert_eq!((code, out.as_str()), (1, ""), "{body}: {err}");
    }
    let node = FakeNode::start(Answer(500, "oops"));
    assert_eq!(told(&node.run(&["members"])).0, 1);
}

#[test]
fn get_as_yaml_can_be_applied_again() {
    let domain = r#"[{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}}]"#;
    let node = FakeNode::start(Answer(200, domain));
    let (code, out, _) = told(&node.run(&["get", "domains", "-o", "yaml"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("apiVersion: selvedge/v1\nkind: Domain\n"), "{out}");
    let (_, out, _) = told(&node.run(&["get", "domains"]));
    assert!(out.starts_with("NAME  ADMINS"), "{out}");
}

#[test]
fn the_network_needs_a_token_and_the_root_certificate() {
    let (code, _, err) = told(&run(&["--api", "https://127.0.0.1:1", "status"]));
    assert_eq!(code, 2);
    assert!(err.contains("--token-file"), "{err}");
}
