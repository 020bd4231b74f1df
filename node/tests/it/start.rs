//! Starts: those that are refused, and what runs after one.

use tokio_util::sync::CancellationToken;

use crate::whole::{Running, found};

#[tokio::test]
async fn a_key_of_another_node_is_refused_with_both_files_named() {
    let dir = tempfile::tempdir().unwrap();
    let (p1, p2) = (found(dir.path(), "p1"), found(dir.path(), "p2"));
    std::fs::copy(p2.data_dir.join("node.key"), p1.data_dir.join("node.key")).unwrap();
    let error = selvedge_node::run(p1, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("p1/node.key is not the key of node p1"), "{error}");
    assert!(error.contains("p1/identity.json") && error.contains("restore both"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_whose_replica_is_gone_does_not_start_with_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = found(dir.path(), "p1");
    Running::founder(&config).await.stop().await;
    std::fs::remove_dir_all(config.data_dir.join("raft")).unwrap();
    let error = selvedge_node::run(config, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("p1/raft is gone") && error.contains("selvedge node remove"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_of_a_running_node_is_named_and_runs() {
    let dir = tempfile::tempdir().unwrap();
    let node = Running::founder(&found(dir.path(), "p1")).await;
    let turns = |name: &str| {
        let name = name.to_owned();
        move |status: &serde_json::Value| {
            let tasks = status["tasks"].as_array().expect("tasks");
            tasks.iter().any(|task| task["name"] == name.as_str() && task["turned_ms_ago"].is_u64())
        }
    };
    for name in ["reconcile", "membership", "raft heartbeats"] {
        node.until("/v1/status", name, turns(name)).await;
    }
    let status = node.get("/v1/status").await;
    for task in status["tasks"].as_array().unwrap() {
        // Without root there is neither a TUN to tend nor a gate whose flows could be logged.
        let may_end = ["overlay tended", "flow log"].contains(&task["name"].as_str().unwrap());
        assert!(task["state"] == "running" || (may_end && task["state"] == "ended"), "{task}");
        assert_eq!(task["restarts"], 0, "{task}");
    }
    node.stop().await;
}
