//! Data-parallel ranks: each at its own port or all at one, and groups of several processes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use llmd_sim::{SimArgs, Simulator};
use serde_json::{Value, json};

use super::client::{DEADLINE, args, get, send, send_to, start, text};

const PATH: &str = "/v1/completions";

fn request() -> Value {
    json!({"model": "m", "prompt": "a b c", "max_tokens": 4, "ignore_eos": true})
}

async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
    rank: Option<&str>,
) -> (u16, String) {
    let headers: Vec<_> = rank
        .map(|rank| ("x-data-parallel-rank", rank))
        .into_iter()
        .collect();
    let response = send_to(address, method, path, body, &headers).await.unwrap();
    (response.status().as_u16(), text(response).await)
}

/// Finished requests of an engine by a page.
async fn finished(address: SocketAddr, rank: usize) -> Option<f64> {
    let (_, page) = ask(address, Method::GET, "/metrics", "", None).await;
    let series = format!("vllm:request_success_total{{engine=\"{rank}\",finished_reason=\"length\"");
    let line = page.lines().find(|line| line.starts_with(&series))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn wait_for_status(address: SocketAddr, path: &str, expected: u16) {
    let start = Instant::now();
    loop {
        let response = send(address, Method::GET, path, "").await.unwrap();
        if response.status() == expected {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{path} is {}", response.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn several(args: &mut SimArgs, size: usize) {
    args.ranks.data_parallel_size = size;
}

#[tokio::test]
async fn each_rank_has_its_port_scheduler_metrics_and_side_channel() {
    let simulator = start(|args| {
        several(args, 3);
        args.ranks.data_parallel_multi_port_external_lb = true;
        args.ranks.data_parallel_supervisor_port = Some(0);
        args.transfer.kv_transfer_config =
            Some(r#"{"kv_connector":"NixlConnector","kv_role":"kv_both"}"#.into());
        args.transfer.nixl_side_channel_port = 0;
        args.transfer.nixl_side_channel_host = "127.0.0.1".into();
    })
    .await;
    let supervisor = simulator.supervisor().unwrap();
    wait_for_status(supervisor, "/health", 200).await;
    wait_for_status(supervisor, "/readyz", 200).await;
    assert_eq!(simulator.addresses().len(), 3);
    let mut body = request();
    body["max_tokens"] = json!(1);
    body["kv_transfer_params"] = json!({"do_remote_decode": true});
    let mut ports = Vec::new();
    for (rank, address) in simulator.addresses().iter().enumerate() {
        let (status, answer) = ask(*address, Method::POST, PATH, &body.to_string(), None).await;
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let params = &answer["kv_transfer_params"];
        let engine = params["remote_engine_id"].as_str().unwrap();
        assert!(engine.ends_with(&format!("_dp{rank}")), "{engine}");
        ports.push(params["remote_port"].as_u64().unwrap());
        for other in 0..3 {
            let expected = (other == rank).then_some(1.0);
            assert_eq!(
                finished(*address, other).await,
                expected,
                "rank {rank} about {other}"
            );
        }
    }
    ports.dedup();
    assert_eq!(ports.len(), 3);
}

#[tokio::test]
async fn ranks_behind_one_port_are_chosen_by_header_or_in_turn() {
    let simulator = start(|args| several(args, 2)).await;
    let (address, body) = (simulator.address(), request().to_string());
    wait_for_status(address, "/health", 200).await;
    for _ in 0..3 {
        assert_eq!(ask(address, Method::POST, PATH, &body, Some("1")).await.0, 200);
    }
    assert_eq!(
        (finished(address, 0).await, finished(address, 1).await),
        (Some(0.0), Some(3.0))
    );
    for _ in 0..4 {
        assert_eq!(ask(address, Method::POST, PATH, &body, None).await.0, 200);
    }
    assert!(finished(address, 0).await.unwrap() >= 1.0, "all went to one rank");
    for wrong in ["2", "-1", "one"] {
        let (status, answer) = ask(address, Method::POST, PATH, &body, Some(wrong)).await;
        assert!(
            status == 400 && answer.contains("the ranks 0 to 1"),
            "{wrong}: {answer}"
        );
    }
}

async fn process(node: usize, rpc_port: u16) -> Simulator {
    let mut args = args();
    several(&mut args, 4);
    args.ranks.data_parallel_size_local = Some(2);
    args.ranks.node_rank = Some(node);
    args.ranks.data_parallel_hybrid_lb = true;
    args.ranks.data_parallel_address = Some("127.0.0.1".into());
    args.ranks.data_parallel_rpc_port = rpc_port;
    Simulator::start(args.config().unwrap()).await.unwrap()
}

#[tokio::test]
async fn no_process_of_a_group_answers_before_all_are_there() {
    let leader = process(0, 0).await;
    let (status, answer) = get(&leader, "/v1/models").await;
    assert_eq!(status, 503, "{answer}");
    let worker = process(1, leader.group().unwrap().port()).await;
    for one in [&leader, &worker] {
        wait_for_status(one.address(), "/v1/models", 200).await;
    }
    let body = request().to_string();
    assert_eq!(
        ask(worker.address(), Method::POST, PATH, &body, Some("3"))
            .await
            .0,
        200
    );
    assert_eq!(finished(worker.address(), 3).await, Some(1.0));
    let (status, _) = ask(worker.address(), Method::POST, PATH, &body, Some("0")).await;
    assert_eq!(status, 400, "rank 0 is another process'");

    drop(worker);
    wait_for_status(leader.address(), "/health", 503).await;
    let again = process(1, leader.group().unwrap().port()).await;
    for one in [&leader, &again] {
        wait_for_status(one.address(), "/health", 200).await;
    }
    drop(leader);
    wait_for_status(again.address(), "/health", 503).await;
}
