//! Pods start, are probed, restarted, replaced and stopped.

use llmd_local::container::Phase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Engines, Run, is_alive, poll};

fn kill_now(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_with_the_rendered_arguments_and_environment_in_their_local_form() {
    let run = Run::start(&Engines::default().with("--model=m"), 0);
    let endpoints = run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    assert_ne!(endpoints[0].1, endpoints[1].1);
    let (name, port) = &endpoints[1];
    let seen = Run::ask(*port).await;
    let argv: Vec<&str> = seen["argv"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap())
        .collect();
    assert_eq!(
        argv,
        ["sim", &format!("--port={port}"), "--model=m", "--host=127.0.0.1"]
    );
    assert_eq!(seen["env"]["POD_NAME"], name.as_str());
    assert_eq!(seen["env"]["SELF"], format!("http://127.0.0.1:{port}"));
    let cache = seen["env"]["CACHE"].as_str().unwrap();
    assert_eq!(
        cache,
        run.dir
            .path()
            .join("pods/x-decode-1/cache/models")
            .to_str()
            .unwrap()
    );
    assert!(
        seen["env"].get("CARGO_MANIFEST_DIR").is_none(),
        "our roles do not inherit the user's environment"
    );
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_engine_leaves_the_endpoints_and_comes_back() {
    let run = Run::start(&Engines::default(), 0);
    run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    let before = run.pod("x-decode-0").unwrap().pid.unwrap();
    kill_now(before);
    let after = poll("a restart", || {
        let pod = run.pod("x-decode-0")?;
        (pod.restarts == 1 && pod.ready).then_some(pod)
    })
    .await;
    assert_ne!(after.pid, Some(before));
    run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_ready_pods_are_endpoints() {
    let run = Run::start(&Engines::default().with("--broken=1"), 0);
    poll("two running pods", || {
        let running = run
            .cluster
            .pods()
            .into_iter()
            .filter(|pod| !pod.router && pod.phase == Phase::Running);
        (running.count() == 2).then_some(())
    })
    .await;
    poll("the reason", || {
        run.pod("x-decode-0").filter(|pod| pod.message == "status 503")
    })
    .await;
    assert!(run.endpoints().is_empty());
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_arguments_replace_pods_and_a_broken_template_leaves_the_old_ones() {
    let run = Run::start(&Engines::default(), 0);
    let old = run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    run.apply(&Engines::default().with("--broken=1")).unwrap();
    poll("a new pod that is not ready", || {
        run.pod("x-decode-2").filter(|pod| !pod.message.is_empty())
    })
    .await;
    assert_eq!(run.endpoints(), old, "the old pods serve on");
    run.apply(&Engines::default().with("--model=new")).unwrap();
    poll("only new pods", || {
        let endpoints = run.endpoints();
        (endpoints.len() == 2 && endpoints.iter().all(|entry| !old.contains(entry))).then_some(())
    })
    .await;
    let (_, port) = run.endpoints()[0].clone();
    assert!(
        Run::ask(port).await["argv"]
            .as_array()
            .unwrap()
            .contains(&"--model=new".into())
    );
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_follows_the_wanted_number_and_keeps_the_pods_that_stay() {
    let run = Run::start(&Engines::default(), 0);
    let two = run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    let scale = |replicas| Engines {
        replicas,
        ..Engines::default()
    };
    run.apply(&scale(3)).unwrap();
    let three = run
        .endpoints_named(&["x-decode-0", "x-decode-1", "x-decode-2"])
        .await;
    assert_eq!(three[..2], two[..]);
    run.apply(&scale(1)).unwrap();
    let one = run.endpoints_named(&["x-decode-0"]).await;
    assert_eq!(one[..], two[..1]);
    poll("the others to end", || {
        (run.cluster.pods().len() == 2).then_some(())
    })
    .await;
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_reported_with_its_code_and_restarted() {
    let mut run = Run::start(&Engines::default().with("--crash=1"), 0);
    poll("two restarts", || {
        run.pod("x-decode-0").filter(|pod| pod.restarts >= 2)
    })
    .await;
    let mut texts = Vec::new();
    while let Ok(event) = run.events.try_recv() {
        texts.push(format!("{event:?}"));
    }
    assert!(
        texts
            .iter()
            .any(|text| text.contains("x-decode-0 ended with code 7; restarting")),
        "{texts:?}"
    );
    assert!(
        texts.iter().any(|text| text.contains("about to crash")),
        "the log is passed on"
    );
    run.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutting_down_leaves_no_process_even_a_stubborn_one() {
    let engines = Engines {
        grace: 1,
        ..Engines::default().with("--stubborn=1")
    };
    let run = Run::start(&engines, 0);
    run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    let pids: Vec<u32> = run.cluster.pods().iter().filter_map(|pod| pod.pid).collect();
    assert_eq!(pids.len(), 3);
    run.shut_down().await;
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(run.cluster.pods().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_are_sliced_and_too_many_are_refused_with_both_numbers() {
    let engines = Engines {
        gpus: 2,
        ..Engines::default()
    };
    let run = Run::start(&engines, 4);
    let endpoints = run.endpoints_named(&["x-decode-0", "x-decode-1"]).await;
    let mut devices = Vec::new();
    for (_, port) in endpoints {
        devices.push(
            Run::ask(port).await["env"]["CUDA_VISIBLE_DEVICES"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(devices, ["0,1", "2,3"]);
    let error = run
        .apply(&Engines {
            replicas: 3,
            ..engines
        })
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("deployment/x-decode asks for 6 GPUs") && error.contains("has 4"),
        "{error}"
    );
    assert_eq!(run.endpoints().len(), 2, "the refused plan changes nothing");
    run.shut_down().await;
}
